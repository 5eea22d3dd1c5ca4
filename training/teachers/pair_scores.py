"""Scores of chosen pairs from the vectors of both sides, for each kind of vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import choose_search_device, parallel
from retrieval.values import Dense, MultiVector, Sparse

_CHUNK = 8_192  # pairs whose vectors are side by side in memory
_GRAIN = 8  # queries worth a thread


def dense_pairs(
    queries: Dense, documents: Dense, q: NDArray[np.int64], d: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(P,) inner products of rows q (P,) of the queries with rows d (P,) of the documents."""
    scores = np.empty(len(q), dtype=np.float32)
    for part in _chunks(len(q)):
        left, right = queries.values[q[part]], documents.values[d[part]]
        scores[part] = np.einsum("pd,pd->p", left.astype(np.float32), right.astype(np.float32))
    return scores


def sparse_pairs(
    queries: Sparse, documents: Sparse, q: NDArray[np.int64], d: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(P,) inner products over the vocabulary; no term in common is 0."""
    from scipy.sparse import csr_array  # type: ignore[import-untyped]

    def matrix(rows: Sparse) -> Any:
        return csr_array((rows.values, rows.indices, rows.indptr), shape=(len(rows), rows.dim))

    scores = np.empty(len(q), dtype=np.float32)
    for part in _chunks(len(q)):
        both = matrix(queries.take(q[part])).multiply(matrix(documents.take(d[part])))
        scores[part] = both.sum(axis=1)
    return scores


def late_pairs(
    queries: MultiVector, documents: MultiVector, q: NDArray[np.int64], d: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(P,) MaxSim over all tokens (Khattab & Zaharia, SIGIR 2020, arXiv:2004.12832), summed over the query's.

    On the GPU that TERCET_DEVICE names, where it names one.
    """
    asked, rows, place = _by_query(q, d)
    chosen, device = queries.take(asked), choose_search_device()
    if device != "cpu":
        from retrieval import maxsim_gpu

        return maxsim_gpu.score_rows(documents, chosen, rows, device)[place]
    from retrieval.maxsim import score_rows

    scores = np.empty(rows.shape, dtype=np.float32)

    def share(part: slice) -> None:
        scores[part] = score_rows(documents, chosen[part], rows[part])

    parallel(share, len(rows), grain=_GRAIN)
    return scores[place]


PAIR_SCORES: Mapping[
    type, Callable[[Any, Any, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
] = {
    Dense: dense_pairs,
    Sparse: sparse_pairs,
    MultiVector: late_pairs,
}
"""Kind of vector -> its pair scores."""


def _chunks(n: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, n, _CHUNK)]


def _by_query(
    q: NDArray[np.int64], d: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs as a line a query.

    Returns:
        (Q,) the distinct queries, (Q, C) their documents with -1 for padding, and line and column of each pair.
    """
    asked, line, counts = np.unique(q, return_inverse=True, return_counts=True)
    order = np.argsort(line, kind="stable")
    column = np.empty(len(q), dtype=np.int64)
    column[order] = np.arange(len(q)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.full((len(asked), int(counts.max(initial=0))), -1, dtype=np.int64)
    rows[line, column] = d
    return asked, rows, (line, column)
