"""From weights of every term to rows of the few that matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CorruptError
from retrieval.values import Sparse


def sparse_rows(weights: NDArray[np.float32], keep: int | None, place: Path) -> Sparse:
    """The positive weights, of each row the heaviest.

    Args:
        weights: (N, V), 0 for terms a text lacks; a negative weight, which no index can hold, counts as 0.
        keep: most terms of a row; None keeps all.
        place: the model's folder, for the message.

    Raises:
        CorruptError: a weight is not finite.
    """
    if not np.isfinite(weights).all():
        raise not_finite(place)
    rows, indices = np.nonzero(weights > 0)
    indptr = row_offsets(np.bincount(rows, minlength=len(weights)))
    found = Sparse(indptr, indices.astype(np.int32), weights[rows, indices], weights.shape[1])
    return found if keep is None else heaviest(found, keep)


def not_finite(place: Path) -> CorruptError:
    """The error of a model in this folder whose weights are not finite."""
    return CorruptError(
        place,
        "the model gives weights that are not finite; its files are damaged, "
        'or its numbers too large for half precision (option dtype "float32")',
    )


def heaviest(rows: Sparse, keep: int) -> Sparse:
    """The heaviest terms of each row, ties by ascending term.

    Args:
        rows: any sparse rows.
        keep: most terms of a row, at least 1.
    """
    counts = np.diff(rows.indptr)
    if not len(counts) or int(counts.max()) <= keep:
        return rows
    chosen = heaviest_entries(np.repeat(np.arange(len(rows)), counts), rows.values, keep)
    indptr = row_offsets(np.minimum(counts, keep))
    return Sparse(indptr, rows.indices[chosen], rows.values[chosen], rows.dim)


def heaviest_entries(
    rows: NDArray[np.integer], values: NDArray[np.floating], keep: int
) -> NDArray[np.integer]:
    """Positions of the heaviest entries of each row, ascending; ties by position.

    Args:
        rows: (nnz,) the row of each entry, ascending.
        values: (nnz,).
        keep: most entries of a row, at least 1.
    """
    order = np.lexsort((-values, rows))
    starts = np.searchsorted(rows, rows)
    rank = np.arange(len(order)) - starts[order]
    return np.sort(order[rank < keep])


def row_offsets(counts: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    """(N+1,) where rows of the given lengths start, and where the last ends."""
    indptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    return indptr
