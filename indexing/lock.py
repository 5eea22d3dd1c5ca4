"""Who may write and what may be swept: advisory file locks that vanish with their process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import LockedError


@contextlib.contextmanager
def writer_lock(collection: Path) -> Iterator[None]:
    """Hold the collection's only writer's place.

    Raises:
        LockedError: another process (named by its id) is writing.
    """
    path = collection / "writer.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"{collection}: process {holder} is writing to this collection; wait for it or stop it, then try again"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def hold_segment(folder: Path) -> int:
    """Keep a segment's files from being swept while this handle (to be closed with os.close) is open."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def is_held(folder: Path) -> bool:
    """Whether a reader still holds the segment."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
