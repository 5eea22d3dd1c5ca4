"""Entries of a sparse matrix on their way to its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.sparse_rows import heaviest_entries, row_offsets
from retrieval.values import Sparse


@dataclass(frozen=True, eq=False)
class Entries:
    """Numbers at places, each place once.

    Attributes:
        rows, dims: (nnz,) int64.
        values: (nnz,) float32.
    """

    rows: NDArray[np.int64]
    dims: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def summed(
        cls, rows: NDArray[np.int64], dims: NDArray[np.int64], values: NDArray[np.float32], width: int
    ) -> Entries:
        """Entries by row and dimension of numbers in any order; those at one place are added up.

        Args:
            rows, dims, values: (n,) each.
            width: dims are below it.
        """
        keys, places = np.unique(rows * width + dims, return_inverse=True)
        totals = np.bincount(places, weights=values, minlength=len(keys))
        found_rows, found_dims = np.divmod(keys, width)
        return cls(found_rows, found_dims, totals.astype(np.float32))

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Entries:
        """Those of parts that share no place."""
        return cls(
            np.concatenate([np.zeros(0, dtype=np.int64), *(part.rows for part in parts)]),
            np.concatenate([np.zeros(0, dtype=np.int64), *(part.dims for part in parts)]),
            np.concatenate([np.zeros(0, dtype=np.float32), *(part.values for part in parts)]),
        )

    def shifted(self, by: int) -> Entries:
        """The same in later dimensions."""
        return Entries(self.rows, self.dims + by, self.values)

    def times(self, factors: NDArray[np.float32] | float) -> Entries:
        """The same with other values: one factor for all, or one for each."""
        return Entries(self.rows, self.dims, self.values * np.asarray(factors, dtype=np.float32))

    def heaviest(self, keep: int) -> Entries:
        """Of each row the heaviest; rows ascend, ties by position."""
        chosen = heaviest_entries(self.rows, self.values, keep)
        return Entries(self.rows[chosen], self.dims[chosen], self.values[chosen])

    def to_rows(self, n: int, dim: int) -> Sparse:
        """(n, dim) sparse."""
        order = np.argsort(self.rows * dim + self.dims)
        indptr = row_offsets(np.bincount(self.rows, minlength=n))
        return Sparse(indptr, self.dims[order].astype(np.int32), self.values[order], dim)
