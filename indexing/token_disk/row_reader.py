"""Rows of a ragged array on disk, read ahead by threads and kept under a budget."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from indexing.token_disk.direct_file import BLOCK, DirectFile
from indexing.token_disk.kept_rows import KeptRows
from indexing.token_disk.statistics import DiskStatistics
from retrieval.values.storage import map_array

READERS = 16
"""Reads in flight at a time, of the whole process: solid-state disks answer several as fast as one."""
_LONGEST = 1 << 20  # bytes read at once where rows are neighbours

Read = list[int]  # neighbouring rows, ascending, none of them empty
Arrived = dict[int, NDArray[np.uint8]]


class RowReader:
    """Reads rows of a .npy of bytes, a row being so many lines of it; safe for many threads.

    After ESPN (Shrestha, Reddy & Li, "ESPN: Memory-Efficient Multi-Vector Information Retrieval", ISMM 2024): rows are
    asked for while candidates are still being looked for, and only what was not foreseen is waited for in full. What
    differs: a CPU reads, with O_DIRECT instead of GPUDirect, and rows stay in memory under a budget for later searches.
    What a search is working on comes on top of the budget; one smaller than that drops rows before they are taken,
    which costs time alone.
    """

    def __init__(self, path: Path, indptr: NDArray[np.int64], budget: int) -> None:
        """Open a file.

        Args:
            path: (T, P) uint8 as .npy.
            indptr: (N + 1,) the lines at which rows begin.
            budget: bytes that kept rows may take.

        Raises:
            CorruptError: the file is missing, cut short or no .npy.
        """
        lines = map_array(path)
        self._width = int(lines.shape[1])
        self._offset = int(getattr(lines, "offset", 0))  # none where there are no lines, and nothing to read
        self._file = DirectFile(path)
        self._indptr = indptr
        self._lock = threading.Lock()
        self._kept = KeptRows(budget)  # this and all below are changed under the lock alone
        self._flying: dict[int, Future[Arrived]] = {}
        self._ahead: set[int] = set()  # kept or flying, asked for ahead and not taken yet
        self._counts = DiskStatistics(self._file.direct, budget)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Have rows read that are neither kept nor on their way; returns at once."""
        filled = rows[self._indptr[rows + 1] > self._indptr[rows]].tolist()
        with self._lock:
            wanted = [row for row in filled if row not in self._flying and self._kept.get(row) is None]
            self._ahead.update(wanted)
            self._counts.ahead += len(wanted)
            self._start(wanted)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The lines of rows, one row after another; waits for those that are not in memory.

        Args:
            rows: (M,).

        Returns:
            (their lines, P).

        Raises:
            CorruptError: the file has been cut short since it was opened, or the disk reports an error.
        """
        filled = rows[self._indptr[rows + 1] > self._indptr[rows]].tolist()
        with self._lock:
            arrays = {row: array for row in filled if (array := self._kept.get(row)) is not None}
            self._count(filled, arrays)
            self._start([row for row in filled if row not in arrays and row not in self._flying])
            waiting = {row: self._flying[row] for row in filled if row not in arrays}
        started = perf_counter()
        for row, future in waiting.items():
            arrays[row] = future.result()[row]
        with self._lock:
            self._counts.seconds_waited += perf_counter() - started
        lines = [arrays[row] for row in filled]
        return np.concatenate(lines) if lines else np.empty((0, self._width), dtype=np.uint8)

    def statistics(self) -> DiskStatistics:
        """What has been read and waited for so far."""
        with self._lock:
            return replace(self._counts, used=self._kept.used)

    def _count(self, rows: list[int], arrays: Arrived) -> None:
        """Count rows that are taken, arrays being those kept."""
        ahead = self._ahead.intersection(rows)
        self._ahead -= ahead
        self._counts.takes += 1
        self._counts.prefetched += len(ahead)
        for row in rows:
            if row not in ahead:
                if row in arrays or row in self._flying:
                    self._counts.kept += 1
                else:
                    self._counts.missed += 1

    def _start(self, rows: list[int]) -> None:
        """Hand rows to the readers, each an equal share of the reads."""
        reads = list(self._reads(sorted(set(rows))))
        shares = min(READERS, len(reads))
        for share in range(shares):
            mine = reads[len(reads) * share // shares : len(reads) * (share + 1) // shares]
            future = _readers().submit(self._fetch, mine)
            for read in mine:
                self._flying.update(dict.fromkeys(read, future))

    def _reads(self, rows: list[int]) -> Iterator[Read]:
        """Ascending rows in groups that are read at once, since they lie in the same blocks or in neighbouring ones."""
        read: Read = []
        first = last = 0
        for row in rows:
            start, stop = self._place(row)
            if read and (start >= last + BLOCK or stop - first > _LONGEST):
                yield read
                read = []
            if not read:
                first = start
            read.append(row)
            last = stop + -stop % BLOCK
        if read:
            yield read

    def _place(self, row: int) -> tuple[int, int]:
        """The bytes at which a row begins and ends."""
        start, stop = self._indptr[row : row + 2].tolist()
        return self._offset + start * self._width, self._offset + stop * self._width

    def _fetch(self, reads: list[Read]) -> Arrived:
        """Read, keep and return rows; runs in a reader."""
        arrived: Arrived = {}
        n_bytes = 0
        try:
            for read in reads:
                start, stop = self._place(read[0])[0], self._place(read[-1])[1]
                content = self._file.read(start, stop)
                n_bytes += stop + -stop % BLOCK - (start - start % BLOCK)
                for row in read:
                    low, high = self._place(row)
                    arrived[row] = content[low - start : high - start].reshape(-1, self._width).copy()
        finally:
            with self._lock:
                self._land(reads, arrived)
                self._counts.reads += len(reads)
                self._counts.bytes_read += n_bytes
        return arrived

    def _land(self, reads: Iterable[Read], arrived: Arrived) -> None:
        """Rows are no longer on their way: keep those that have arrived, forget the rest."""
        for read in reads:
            for row in read:
                del self._flying[row]
                gone = self._kept.put(row, arrived[row]) if row in arrived else [row]
                self._ahead.difference_update(gone)


@functools.cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="tercet-disk")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        after_in_child=_readers.cache_clear
    )  # a forked child has none of its parent's threads
