"""Sets of rows as packed bits: uint8, little-endian within a byte (the layout of FAISS's bitmaps)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Bitmap:
    """A set of the rows 0 .. n-1.

    Attributes:
        bits: ceil(n / 8) uint8; row r is bit ``r & 7`` of byte ``r >> 3``; bits past n are 0.
        n: how many rows the set is drawn from.
    """

    bits: NDArray[np.uint8]
    n: int

    def __post_init__(self) -> None:
        if self.bits.dtype != np.uint8 or self.bits.shape != ((self.n + 7) // 8,):
            raise ValueError(
                f"a bitmap of {self.n} rows needs {(self.n + 7) // 8} uint8, "
                f"got {self.bits.dtype} {self.bits.shape}"
            )

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_]) -> Bitmap:
        """Pack an (n,) boolean mask."""
        return cls(np.packbits(mask, bitorder="little"), len(mask))

    @classmethod
    def from_rows(cls, rows: Iterable[int] | NDArray[np.integer], n: int) -> Bitmap:
        """The set of the given rows out of n."""
        mask = np.zeros(n, dtype=np.bool_)
        mask[np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), dtype=np.int64)] = True
        return cls.from_mask(mask)

    @classmethod
    def full(cls, n: int) -> Bitmap:
        """Every row."""
        return cls.from_mask(np.ones(n, dtype=np.bool_))

    @classmethod
    def empty(cls, n: int) -> Bitmap:
        """No row."""
        return cls(np.zeros((n + 7) // 8, dtype=np.uint8), n)

    def mask(self) -> NDArray[np.bool_]:
        """(n,) booleans."""
        return np.unpackbits(self.bits, count=self.n, bitorder="little").view(np.bool_)

    def rows(self) -> NDArray[np.int64]:
        """The rows of the set, ascending."""
        return np.flatnonzero(self.mask())

    def count(self) -> int:
        """How many rows the set has."""
        return int(np.bitwise_count(self.bits).sum())

    def __contains__(self, row: int) -> bool:
        return bool(self.bits[row >> 3] >> (row & 7) & 1)

    def __and__(self, other: Bitmap) -> Bitmap:
        self._check_same(other)
        return Bitmap(self.bits & other.bits, self.n)

    def __or__(self, other: Bitmap) -> Bitmap:
        self._check_same(other)
        return Bitmap(self.bits | other.bits, self.n)

    def _check_same(self, other: Bitmap) -> None:
        if self.n != other.n:
            raise ValueError(f"bitmaps over {self.n} and {other.n} rows cannot be combined")

    def __invert__(self) -> Bitmap:
        return Bitmap.from_mask(~self.mask())

    def slice(self, start: int, stop: int) -> Bitmap:
        """The rows start .. stop-1, renumbered from 0."""
        if start % 8 == 0:
            bits = self.bits[start >> 3 : (stop + 7) >> 3].copy()
            if stop % 8 and len(bits):
                bits[-1] &= (1 << (stop - start & 7)) - 1
            return Bitmap(bits, stop - start)
        return Bitmap.from_mask(self.mask()[start:stop])
