"""Exact search over dense vectors: estimate every allowed row fast, then score the few that matter for good.

Estimates (float32, by matrix product or a streaming loop) carry rounding errors that depend on the shape of
the batch. Every row within the proven error bound of the k-th best estimate stays a candidate, and
``retrieval.kernels.inner_products`` scores the candidates. So rows and scores are those of scoring everything
with that kernel, whatever the batch, the chunk, the segment or the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.bitmap import Bitmap
from retrieval.compute import apply_threads, parallel
from retrieval.errors import IncompatibleError
from retrieval.topk import merge, top_k
from retrieval.values import Dense, Hits
from retrieval.values.storage import release_pages

_QUERIES = 256  # queries that share one pass over the vectors
_FEW = 12  # queries up to which streaming beats a matrix product (2: 6 ms against 20; 12: 22 against 24)
_ROWS = 4096  # rows of a chunk: 6 MB at width 384, and 4 MB of estimates for a full block of queries
_GRAIN = 8192  # rows worth a thread of their own: about 0.4 ms at width 384
_SAFE = 1e37  # products up to here cannot overflow float32 on the way


def checked(queries: Dense, dim: int) -> NDArray[np.float32]:
    """The query vectors as (Q, D) float32.

    Raises:
        IncompatibleError: their width is not the index's.
        ValueError: one holds NaN or infinity.
    """
    if queries.dim != dim:
        raise IncompatibleError(
            f"the queries have width {queries.dim}, the index {dim}; encode queries with the encoder "
            "the collection was made with"
        )
    values = np.ascontiguousarray(queries.values, dtype=np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"query vector {row} holds NaN or infinity")
    return values


def largest_norm(vectors: Dense, progress: Callable[[int], None] = lambda rows: None) -> float:
    """The largest Euclidean norm of a row (0 without rows), read once in chunks; the scan's error bound needs it."""
    largest = 0.0
    for start in range(0, len(vectors), _ROWS):
        chunk = np.asarray(vectors.values[start : start + _ROWS], dtype=np.float64)
        largest = max(largest, float(np.einsum("nd,nd->n", chunk, chunk).max()))
        progress(len(chunk))
        if start // _ROWS % 16 == 15:  # mapped pages count as memory of the build
            release_pages(vectors.values)
    release_pages(vectors.values)
    return float(np.sqrt(largest))


def score_rows(vectors: Dense, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The final scores (Q, C) of chosen rows (Q, C) by the fixed-order kernel; -1 scores -inf."""
    from retrieval.kernels import frozen, inner_products

    values, queries, rows = frozen(vectors.values), frozen(queries), frozen(rows)
    scores = np.empty(rows.shape, dtype=np.float32)

    def share(part: slice) -> None:
        inner_products(queries[part], values, rows[part], scores[part])

    parallel(share, len(rows), grain=max(1, 2000 // max(1, rows.shape[1])))
    return scores


def rank_rows(vectors: Dense, queries: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Hits:
    """The k best of chosen rows (Q, C), scored by the fixed-order kernel."""
    return top_k(score_rows(vectors, queries, rows), k, rows)


def scan(vectors: Dense, norm: float, queries: Dense, k: int, allowed: Bitmap | None = None) -> Hits:
    """The k best rows of each query among the allowed ones, exactly.

    Args:
        vectors: N rows, memory-mapped or not; finite.
        norm: at least the norm of every row (``largest_norm``).
        queries: Q vectors of the same width.
        k: results wanted; more than there are rows pads.
        allowed: the rows that may be returned; None means all.

    Raises:
        IncompatibleError: the widths differ.
        ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
    """
    asked = checked(queries, vectors.dim)
    n = len(vectors)
    if allowed is not None and allowed.n != n:
        raise ValueError(f"the bitmap is for {allowed.n} rows, the index has {n}")
    rows = None if allowed is None or allowed.count() == n else allowed.rows()
    m = n if rows is None else len(rows)
    if m == 0 or len(asked) == 0:
        return Hits.none(len(asked), k)
    apply_threads()
    wanted = min(k, m)
    parts = []
    for start in range(0, len(asked), _QUERIES):
        block = asked[start : start + _QUERIES]
        reach = np.linalg.norm(block.astype(np.float64), axis=1) * norm
        if reach.max() > _SAFE:
            parts.append(_score_all(vectors, block, rows, wanted))
        elif len(block) <= _FEW:
            parts.append(_stream(vectors, block, rows, wanted, reach))
        else:
            parts.append(_multiply(vectors, block, rows, wanted, reach))
    return (Hits.concat(parts) if len(parts) > 1 else parts[0]).cut(k)


@dataclass(frozen=True, eq=False)
class _Candidates:
    """The rows of Q queries that may be among their k best. Scratch of one call: its arrays are written."""

    k: int
    slack: NDArray[np.float64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    counts: NDArray[np.int64]
    floors: NDArray[np.float64]

    @classmethod
    def of(cls, n_queries: int, k: int, dim: int, reach: NDArray[np.float64]) -> _Candidates:
        """No candidates yet.

        Summing D products in float32 in any order is off by at most D/(1 - Du) u |q||d| with u = 2^-24 (Higham,
        Accuracy and Stability of Numerical Algorithms, 2002, section 3.1); the final score is rounded once more,
        and two estimates are compared.
        """
        size = 4 * k + 1024
        unit = 2.0**-24
        slack = 2.0 * (reach * (dim + 8) * unit / (1.0 - (dim + 8) * unit) + dim * 2.0**-126)
        return cls(
            k,
            slack,
            np.empty((n_queries, size), dtype=np.int64),
            np.empty((n_queries, size), dtype=np.float32),
            np.zeros(n_queries, dtype=np.int64),
            np.full(n_queries, -np.inf),
        )

    def add(
        self,
        vectors: Dense,
        queries: NDArray[np.float32],
        estimated: NDArray[np.float32],
        columns: NDArray[np.int64],
        names: NDArray[np.int64],
    ) -> None:
        """Take in the estimates (Q, C) of one chunk; see ``retrieval.kernels.collect``."""
        from retrieval.kernels import collect, frozen

        estimated, columns, names = frozen(estimated), frozen(columns), frozen(names)
        starts = np.zeros(len(queries), dtype=np.int64)

        def share(part: slice) -> bool:
            return bool(
                collect(
                    estimated[part], columns, names, self.k, self.slack[part], starts[part],
                    self.rows[part], self.scores[part], self.counts[part], self.floors[part],
                )
            )  # fmt: skip

        grain = max(1, _ROWS * 16 // max(1, len(columns)))
        while not all(parallel(share, len(queries), grain=grain)):
            # So many rows score nearly the same that only their exact scores, then their rows, tell them apart.
            for query in np.flatnonzero(starts < len(columns)):
                count = self.counts[query]
                kept = rank_rows(vectors, queries[query : query + 1], self.rows[None, query, :count], self.k)
                self.rows[query, : self.k], self.scores[query, : self.k] = kept.rows[0], kept.scores[0]
                self.counts[query] = self.k

    def ranked(self, vectors: Dense, queries: NDArray[np.float32]) -> Hits:
        """The k best candidates by their final scores."""
        from retrieval.kernels import finish

        finish(self.k, self.slack, self.rows, self.scores, self.counts, self.floors)
        widest = int(self.counts.max(initial=0))
        return rank_rows(vectors, queries, self.rows[:, :widest], self.k)


def _stream(
    vectors: Dense,
    queries: NDArray[np.float32],
    rows: NDArray[np.int64] | None,
    k: int,
    reach: NDArray[np.float64],
) -> Hits:
    """Few queries: one loop over the rows where they lie, shared among threads, no copies."""
    from retrieval.kernels import estimates, frozen

    values, asked = frozen(vectors.values), frozen(queries)

    def share(part: slice) -> Hits:
        found = _Candidates.of(len(queries), k, vectors.dim, reach)
        columns = np.arange(min(_ROWS, part.stop - part.start))
        for start in range(part.start, part.stop, _ROWS):
            stop = min(start + _ROWS, part.stop)
            names = np.arange(start, stop) if rows is None else rows[start:stop]
            estimated = np.empty((len(queries), len(names)), dtype=np.float32)
            estimates(asked, values, frozen(names), estimated)
            found.add(vectors, queries, estimated, columns[: len(names)], names)
        return found.ranked(vectors, queries)

    shares = parallel(share, len(vectors) if rows is None else len(rows), grain=_GRAIN)
    return shares[0] if len(shares) == 1 else merge(shares, k)


def _multiply(
    vectors: Dense,
    queries: NDArray[np.float32],
    rows: NDArray[np.int64] | None,
    k: int,
    reach: NDArray[np.float64],
) -> Hits:
    """Several queries: one matrix product a chunk."""
    found = _Candidates.of(len(queries), k, vectors.dim, reach)
    space = np.empty(len(queries) * _ROWS, dtype=np.float32)
    for chunk, columns, names in _chunks(vectors, rows):
        estimated = space[: len(queries) * len(chunk)].reshape(len(queries), len(chunk))  # (Q, C)
        np.matmul(queries, chunk.T, out=estimated)
        found.add(vectors, queries, estimated, columns, names)
    return found.ranked(vectors, queries)


def _chunks(
    vectors: Dense, rows: NDArray[np.int64] | None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
    """Vectors (C, D) float32 chunk by chunk, which of its columns count, and the rows those are.

    With few rows allowed only those are gathered; with at least half, whole chunks are multiplied where they
    lie, which is cheaper than copying.
    """
    values, n = vectors.values, len(vectors)
    if rows is not None and 2 * len(rows) < n:
        columns = np.arange(min(_ROWS, len(rows)))
        for start in range(0, len(rows), _ROWS):
            names = rows[start : start + _ROWS]
            yield _as_float32(values[names]), columns[: len(names)], names
        return
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        if rows is None:
            names = np.arange(start, stop)
        else:
            names = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
        if len(names):
            yield _as_float32(values[start:stop]), names - start, names


def _as_float32(chunk: NDArray[np.float32] | NDArray[np.float16]) -> NDArray[np.float32]:
    if chunk.dtype != np.float16:
        return np.asarray(chunk)
    from retrieval.kernels import frozen, halves

    out = np.empty(chunk.shape, dtype=np.float32)
    halves(frozen(chunk), out)  # 0.1 ms a chunk, where numpy takes 2.5
    return out


def _score_all(vectors: Dense, queries: NDArray[np.float32], rows: NDArray[np.int64] | None, k: int) -> Hits:
    """The same without estimates, for vectors so large that float32 would overflow on the way."""
    best = Hits.none(len(queries), k)
    m = len(vectors) if rows is None else len(rows)
    for start in range(0, m, _ROWS):
        names = np.arange(start, min(start + _ROWS, m)) if rows is None else rows[start : start + _ROWS]
        chunk = np.broadcast_to(names, (len(queries), len(names)))
        best = merge([best, rank_rows(vectors, queries, chunk, k)], k)
    return best
