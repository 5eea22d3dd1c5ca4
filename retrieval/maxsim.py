"""Exact MaxSim on a CPU: of a query with chosen rows, and the best of many rows.

Khattab & Zaharia, "ColBERT", SIGIR 2020, arXiv:2004.12832. Rows are ragged, so padding never enters. The score of a row
is the one of ``retrieval.maxsim_kernels.maxima`` and depends on query and row alone. ``best_rows`` may estimate all
rows in bfloat16 first; every row whose estimate lies within the proven error of the k-th best is then scored for good,
so rows and scores are those of scoring everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import apply_threads, parallel
from retrieval.errors import IncompatibleError
from retrieval.topk import top_k
from retrieval.values import Hits, MultiVector

_GRAIN = 16  # rows worth a thread: about 0.3 ms
_SAFE = 1e37  # products up to here cannot overflow float32 on the way
_FEW = 64  # rows that are scored at once, without estimates


def score_rows(documents: MultiVector, queries: MultiVector, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """MaxSim of each query with rows of its own.

    Args:
        documents: N rows, memory-mapped or not; one without tokens scores 0.
        queries: Q texts of the same width; one without tokens scores 0 against every row.
        rows: (Q, C), -1 for padding.

    Returns:
        (Q, C) scores, -inf for padding.

    Raises:
        IncompatibleError: the widths differ.
        ValueError: a query holds NaN or infinity, or a product exceeds float32.
    """
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    for line, query in enumerate(_each(checked(queries, documents.dim))):
        kept = rows[line] >= 0
        scores[line, kept] = _score(documents, query, rows[line, kept])
    return scores


def best_rows(
    documents: MultiVector, norm: float, queries: MultiVector, rows: NDArray[np.int64], k: int
) -> Hits:
    """The k best of chosen rows by MaxSim, exactly; ties by ascending row.

    Args:
        documents: N rows, memory-mapped or not; one without tokens scores 0.
        norm: at least the norm of every token vector.
        queries: Q texts of the same width.
        rows: (Q, C) or (1, C) for all queries, distinct within a line, -1 for padding.
        k: results wanted; more than there are rows pads.

    Raises:
        IncompatibleError: the widths differ.
        ValueError: a query holds NaN or infinity, or a product exceeds float32.
    """
    hits = Hits.none(len(queries), k)
    for line, query in enumerate(_each(checked(queries, documents.dim))):
        chosen = rows[min(line, len(rows) - 1)]
        chosen = _contenders(documents, norm, query, chosen[chosen >= 0], k)
        best = top_k(_score(documents, query, chosen)[None, :], k, chosen[None, :])
        hits.rows[line], hits.scores[line] = best.rows[0], best.scores[0]
    return hits


def likely_rows(
    documents: MultiVector, queries: MultiVector, rows: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """The k best of chosen rows as far as estimates tell, for choosing what to score.

    Args:
        documents: N rows, memory-mapped or not.
        queries: Q texts of the same width.
        rows: (Q, C) or (1, C) for all queries, distinct within a line, -1 for padding.
        k: rows wanted.

    Returns:
        (Q, k), -1 for padding.

    Raises:
        IncompatibleError: the widths differ.
        ValueError: a query holds NaN or infinity.
    """
    likely = np.full((len(queries), k), -1, dtype=np.int64)
    for line, query in enumerate(_each(checked(queries, documents.dim))):
        chosen = rows[min(line, len(rows) - 1)]
        chosen = chosen[chosen >= 0]
        estimates = np.nan_to_num(_estimate(documents, query, chosen))
        likely[line] = top_k(estimates[None, :], k, chosen[None, :]).rows[0]
    return likely


def best_tokens(
    documents: MultiVector, query: MultiVector, row: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What the score of a row is made of.

    Args:
        documents: N rows.
        query: one text.
        row: which row.

    Returns:
        (L,) the position of the document token that each query token takes, and their inner products; empty where the
        row has no tokens.
    """
    tokens = documents[row : row + 1].values.astype(np.float64)
    if not len(tokens):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    products = query.values[: int(query.indptr[1])].astype(np.float64) @ tokens.T  # (L, T)
    return products.argmax(axis=1), products.max(axis=1)


def checked(queries: MultiVector, dim: int) -> MultiVector:
    """The queries in float32.

    Raises:
        IncompatibleError: their width is not the index's.
        ValueError: one holds NaN or infinity.
    """
    if queries.dim != dim:
        raise IncompatibleError(
            f"the queries have width {queries.dim}, the index {dim}; encode queries with the encoder "
            "the collection was made with"
        )
    finite = np.isfinite(queries.values).all(axis=1)
    if not finite.all():
        row = int(np.searchsorted(queries.indptr, int(finite.argmin()), side="right")) - 1
        raise ValueError(f"query {row} holds NaN or infinity")
    return MultiVector(queries.indptr, queries.values.astype(np.float32, copy=False))


def pack(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(G, D, LANES), L vectors (L, D) side by side in groups, what is left of the last group zero."""
    from retrieval.maxsim_kernels import LANES

    n, dim = vectors.shape
    padded = np.zeros((-(-n // LANES) * LANES, dim), dtype=np.float32)
    padded[:n] = vectors
    return np.ascontiguousarray(padded.reshape(-1, LANES, dim).transpose(0, 2, 1))


def _each(queries: MultiVector) -> Iterator[NDArray[np.float32]]:
    """(L, D) of every query."""
    for start, stop in itertools.pairwise(queries.indptr.tolist()):
        yield queries.values[start:stop]


def _score(
    documents: MultiVector, query: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(C,) the final scores of a query (L, D)."""
    from retrieval.maxsim_kernels import maxima

    scores = _run(maxima, documents, rows, pack(query), len(query))
    if not np.isfinite(scores).all():
        raise ValueError("inner products of token vectors exceed float32; normalise the vectors")
    return scores


def _contenders(
    documents: MultiVector, norm: float, query: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """The rows that may be among the k best."""
    from retrieval.maxsim_kernels import ROUNDED

    if not ROUNDED or len(rows) <= max(k, _FEW) or not len(query):
        return rows
    error = _largest_error(query, nearest_bfloat16(query), norm)
    if error is None:
        return rows
    estimates = _estimate(documents, query, rows)
    worst = np.partition(estimates, len(rows) - k)[len(rows) - k]
    return rows[estimates >= worst - 2.0 * error]


def _estimate(
    documents: MultiVector, query: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(C,) scores as fast as this CPU finds them; ``_largest_error`` bounds how far off they are."""
    from retrieval.maxsim_kernels import ROUNDED, estimated_maxima, maxima

    if ROUNDED:
        return _run(estimated_maxima, documents, rows, paired(pack(nearest_bfloat16(query))), len(query))
    return _run(maxima, documents, rows, pack(query), len(query))


def _run(
    kernel: Any, documents: MultiVector, rows: NDArray[np.int64], lanes: NDArray[Any], n_tokens: int
) -> NDArray[np.float32]:
    """(C,) a kernel's scores of the rows, shared among threads."""
    from retrieval.kernels import frozen

    apply_threads()
    indptr, values, lanes = frozen(documents.indptr), frozen(documents.values), frozen(lanes)
    chosen = frozen(np.asarray(rows, dtype=np.int64))
    scores = np.empty(len(chosen), dtype=np.float32)

    def share(part: slice) -> None:
        kernel(indptr, values, chosen[part], lanes, n_tokens, scores[part])

    parallel(share, len(chosen), grain=_GRAIN)
    return scores


def nearest_bfloat16(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest numbers that bfloat16 holds, ties to even."""
    bits = vectors.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def paired(lanes: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(G, ceil(D / 2), LANES, 2) uint16, the bfloat16 of every two dimensions side by side."""
    n_groups, dim, width = lanes.shape
    steps = (dim + 1) // 2
    halves = np.zeros((n_groups, 2 * steps, width), dtype=np.uint16)
    halves[:, :dim] = lanes.view(np.uint32) >> 16
    return np.ascontiguousarray(halves.reshape(n_groups, steps, 2, width).transpose(0, 1, 3, 2))


def _largest_error(vectors: NDArray[np.float32], rounded: NDArray[np.float32], norm: float) -> float | None:
    """How far an estimate may be from the final score; None where either could overflow.

    A token d and a query token q are rounded to d' and q'. |<q,d> - <q',d'>| is at most |q - q'||d| + |q'||d - d'|,
    where |d - d'| <= 2^-8 |d|. Adding up D products in float32, in pairs or one by one, is off by at most
    1.01 D u |q'||d'| (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1) with u = 2^-23,
    since the instruction rounds twice a pair and takes what is below 2^-126 for zero. The final score has such an
    error of its own, and both are rounded once more. Maxima are off by no more than what they are taken of.
    """
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    if float(lengths.sum()) * norm > _SAFE:
        return None
    lost = np.linalg.norm(exact - rounded, axis=1)
    dim = vectors.shape[1]
    each = lost * norm + (lengths + lost) * norm * 2.0**-8
    each += 2.1 * (dim + 8) * 2.0**-23 * (lengths + lost) * norm * (1.0 + 2.0**-8) + 4 * dim * 2.0**-126
    return float(each.sum())
