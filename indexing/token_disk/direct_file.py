"""A file read at any place without filling the page cache."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CorruptError

BLOCK = 4096
"""What reads begin and end at a multiple of, and memory is aligned to; devices have blocks of 512 or 4096 bytes."""
_TRIES = 2


class DirectFile:
    """A file whose reads go to the device, from any number of threads.

    Opened with O_DIRECT. Where the file system or the operating system has none, pages are dropped from memory after
    each read instead, as far as the system allows; then what others have read lately may come from memory.

    Attributes:
        path: which file.
        direct: whether it is open with O_DIRECT.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; it is closed when the object is gone.

        Raises:
            CorruptError: it is missing or cannot be opened.
        """
        self.path = path
        self._descriptor, self.direct = _open(path)
        self._space = _Space()
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The bytes start .. stop-1, in memory that the thread's next read overwrites.

        Raises:
            CorruptError: they cannot be read, or the file ends before them, in two tries.
        """
        low, high = start - start % BLOCK, stop + -stop % BLOCK
        space = self._space.take(high - low)
        trouble = ""
        for _ in range(_TRIES):
            try:
                arrived = os.preadv(self._descriptor, [space.data], low)
            except OSError as error:
                trouble = str(error)
                continue
            if arrived >= stop - low:
                self._forget(low, high - low)
                return space[start - low : stop - low]
            trouble = f"only {max(0, arrived - (start - low))} of {stop - start} bytes are there"
        raise CorruptError(
            self.path, f"bytes {start} to {stop} cannot be read ({trouble}); build the index again"
        )

    def _forget(self, start: int, length: int) -> None:
        """Drop what the read left in the page cache."""
        if not self.direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_DONTNEED)


class _Space(threading.local):
    """Aligned memory of each thread, kept from one read for the next."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, dtype=np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        if len(self._bytes) < size:
            self._bytes = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)  # begins at a page
        return self._bytes[:size]


def _open(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether it reads directly.

    Raises:
        CorruptError: the file is missing or cannot be opened.
    """
    for flag in (getattr(os, "O_DIRECT", 0), 0):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag)
        except OSError as error:
            if flag and error.errno == errno.EINVAL:
                continue
            raise CorruptError(path, f"cannot be opened ({error})") from error
        if not flag or _reads(descriptor):
            return descriptor, bool(flag)
        os.close(descriptor)
    raise AssertionError("a file opens without O_DIRECT or raises")


def _reads(descriptor: int) -> bool:
    """Whether reads aligned to a block are taken; some file systems open with O_DIRECT and refuse them."""
    try:
        os.preadv(descriptor, [mmap.mmap(-1, BLOCK)], 0)
    except OSError as error:
        return error.errno != errno.EINVAL
    return True
