"""Who may write and what may be swept: advisory file locks that vanish with their process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import LockedError

WRITER_LOCK = "writer.lock"


@contextlib.contextmanager
def writer_lock(collection: Path) -> Iterator[None]:
    """Hold the collection's only writer's place.

    Raises:
        LockedError: another process (named by its id) is writing.
        OSError: the folder cannot be written, or its file system has no locks; names the file.
    """
    path = collection / WRITER_LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"{collection}: process {holder} is writing to this collection; wait for it or stop it, then try again"
            ) from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        if not _is_file(handle, path):
            raise LockedError(f"{collection}: a first build of it failed at this moment; try again")
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def hold_segment(folder: Path) -> int:
    """Keep a segment's files from being swept while this handle (to be closed with os.close) is open.

    Raises:
        FileNotFoundError: the segment has been swept.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        if not _is_file(handle, folder):  # it was being swept while this waited
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextlib.contextmanager
def unheld(folder: Path) -> Iterator[bool]:
    """Whether no reader holds the segment; where none does, none can begin to before the block ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of its path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
