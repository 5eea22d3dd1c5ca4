"""Arrays that a thread's searches work in, one after another."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Scratch(threading.local):
    """Arrays by name, kept from one search of a thread for the next, since fresh memory costs more than using it."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def take(self, name: str, size: int, dtype: DTypeLike) -> NDArray[Any]:
        """An array of that size: zeros at first, later whatever the last search left in it."""
        kept = self._arrays.get(name)
        if kept is None or len(kept) < size:
            kept = self._arrays[name] = np.zeros(size, dtype=dtype)
        return kept[:size]
