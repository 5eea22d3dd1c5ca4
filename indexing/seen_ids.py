"""Which ids a build has met, in about 20 bytes an id however long the ids are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_RECENT = 50_000


class SeenIds:
    """Maps the 64-bit hash of an id to the number of its latest document.

    Recent ids are in a dict, older ones in two sorted arrays the dict is merged into: a dict of all ids would
    cost over a hundred bytes each.
    """

    def __init__(self) -> None:
        self._hashes: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        self._numbers: NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)
        self._recent: dict[int, int] = {}

    def get(self, hash_: int) -> int | None:
        """The number noted for a hash, or None."""
        number = self._recent.get(hash_)
        if number is not None:
            return number
        place = int(np.searchsorted(self._hashes, np.uint64(hash_)))
        if place < len(self._hashes) and int(self._hashes[place]) == hash_:
            return int(self._numbers[place])
        return None

    def note(self, hash_: int, number: int) -> None:
        """Remember (or move) a hash."""
        self._recent[hash_] = number
        if len(self._recent) >= _RECENT:
            self.extend(
                np.fromiter(self._recent.keys(), dtype=np.uint64, count=len(self._recent)),
                list(self._recent.values()),
            )
            self._recent = {}

    def extend(self, hashes: NDArray[np.uint64], numbers: Sequence[int] | NDArray[np.integer]) -> None:
        """Merge many; of equal hashes the last one stays."""
        merged = np.concatenate([self._hashes, hashes])
        order = np.argsort(merged, kind="stable")
        merged = merged[order]
        last = np.ones(len(merged), dtype=np.bool_)
        last[:-1] = merged[1:] != merged[:-1]
        all_numbers = np.concatenate([self._numbers, np.asarray(numbers, dtype=np.uint32)])
        self._hashes, self._numbers = merged[last], all_numbers[order][last]
