"""Rows kept in memory under a budget; those unused for longest go first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from numpy.typing import NDArray

_OVERHEAD = 256  # bytes that Python takes for an array and its place in two tables


class KeptRows:
    """Arrays by row, no more than fit in a budget. For one thread at a time.

    Attributes:
        budget: bytes, what Python takes for each array included.
        used: bytes taken now.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._arrays: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, row: int) -> NDArray[Any] | None:
        """The array of a row, which is now the one used last; None where it is not kept."""
        found = self._arrays.get(row)
        if found is not None:
            self._arrays.move_to_end(row)
        return found

    def put(self, row: int, array: NDArray[Any]) -> list[int]:
        """Keep the array of a row that is not kept yet; returns the rows that had to go, itself perhaps."""
        self._arrays[row] = array
        self.used += array.nbytes + _OVERHEAD
        gone = []
        while self.used > self.budget:
            oldest, dropped = self._arrays.popitem(last=False)
            self.used -= dropped.nbytes + _OVERHEAD
            gone.append(oldest)
        return gone
