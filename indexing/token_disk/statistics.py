"""What reading rows from disk took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class DiskStatistics:
    """Counts since a reader was opened.

    A row that is taken is one of three: kept from an earlier search, read ahead for this one (it may still be on its
    way), or missed.

    Attributes:
        direct: whether reads bypass the page cache (O_DIRECT).
        budget: bytes that kept rows may take.
        used: bytes that they take now.
        takes: how often rows were taken.
        kept: rows taken that an earlier search had left.
        prefetched: rows taken that had been asked for ahead.
        missed: rows taken that had to be asked for then.
        ahead: rows read ahead, whether they were taken or not.
        reads: reads from the file.
        bytes_read: bytes of the blocks that were read.
        seconds_waited: time that takers waited for reads, of all threads.
    """

    direct: bool
    budget: int
    used: int = 0
    takes: int = 0
    kept: int = 0
    prefetched: int = 0
    missed: int = 0
    ahead: int = 0
    reads: int = 0
    bytes_read: int = 0
    seconds_waited: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Share of the rows taken that were kept or read ahead; 1 where none was taken."""
        taken = self.kept + self.prefetched + self.missed
        return (taken - self.missed) / taken if taken else 1.0

    @property
    def prefetch_rate(self) -> float:
        """Share of the rows that were not kept and had been asked for ahead; 1 where all were kept."""
        needed = self.prefetched + self.missed
        return self.prefetched / needed if needed else 1.0
