"""Dense search in two stages: an approximate structure names candidates, the exact kernel ranks them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexing.dense.scan import checked, rank_rows, scan
from retrieval.bitmap import Bitmap
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, Hits

_LOG = logging.getLogger(__name__)

Nearest = Callable[[NDArray[np.float32], Bitmap | None], NDArray[np.int64]]
"""(Q, C) distinct rows near (Q, D) queries, -1 where fewer were found; None allows all rows."""

_DOUBT, _FILTERED_DOUBT, _LAST_DOUBT = 0.2, 0.1, 0.05
"""The part of the hits that may come from the second half of the candidates: without a filter, with one, and after more
were taken. Of the 10 nearest of 45,000 MiniLM vectors 0.2 are there on average, and half of them where a filter leaves
the rows furthest from the query."""


def search_candidates(
    vectors: Dense,
    norm: float,
    queries: Dense,
    request: SearchRequest,
    nearest: Nearest,
    wider: Nearest | None = None,
) -> Hits:
    """The k best candidates of each query by exact score, and never fewer than min(k, allowed rows).

    Candidates that are not allowed are dropped. A query that is left with too few is answered by an exact scan.

    Args:
        vectors: N rows, memory-mapped.
        norm: at least the norm of every row.
        queries: Q vectors of the same width.
        request: how many hits are wanted, and which rows are allowed.
        nearest: finds candidates; called with at least one query while there is a row to find.
        wider: finds more of them, for queries whose hits come from the end of the candidates as often as from their
            beginning: there, estimates do not tell the allowed rows apart. If it is no better then, rows are scanned.
            Candidates are in order of estimates. None trusts the first ones.

    Raises:
        IncompatibleError: the queries have another width.
        ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
    """
    asked = checked(queries, vectors.dim)
    n, k, allowed = len(vectors), request.k, request.allowed
    if allowed is not None and allowed.n != n:
        raise ValueError(f"the bitmap is for {allowed.n} rows, the index has {n}")
    reachable = n if allowed is None else allowed.count()
    if reachable == 0 or len(asked) == 0:
        return Hits.none(len(asked), k)
    if reachable == n:
        allowed = None
    rows = _only(nearest(asked, allowed), allowed)
    hits = rank_rows(vectors, asked, rows, k)
    unsure = np.flatnonzero(_too_few(hits, min(k, reachable)))
    if wider is not None:
        again = np.flatnonzero(_doubtful(rows, hits, _DOUBT if allowed is None else _FILTERED_DOUBT))
        if len(again):
            rows = _only(wider(asked[again], allowed), allowed)
            better = rank_rows(vectors, asked[again], rows, k)
            _replace(hits, again, better)
            unsure = np.union1d(unsure, again[_doubtful(rows, better, _LAST_DOUBT)])
    if len(unsure):
        _LOG.debug("too few or doubtful candidates for %d queries, scanning for them", len(unsure))
        _replace(hits, unsure, scan(vectors, norm, Dense(asked[unsure]), k, allowed))
    return hits


def _only(rows: NDArray[np.int64], allowed: Bitmap | None) -> NDArray[np.int64]:
    """The candidates with -1 for those that are not allowed."""
    if allowed is None:
        return rows
    return np.where((rows >= 0) & (allowed.bits[rows >> 3] >> (rows & 7) & 1 == 1), rows, -1)


def _too_few(hits: Hits, wanted: int) -> NDArray[np.bool_]:
    """(Q,) whether there are fewer hits than there should be."""
    return hits.rows[:, wanted - 1] < 0


def _doubtful(rows: NDArray[np.int64], hits: Hits, part: float) -> NDArray[np.bool_]:
    """(Q,) whether more than a part of the hits are in the second half of the candidates (Q, C), with C of 4k."""
    half = rows.shape[1] // 2
    if half < 2 * hits.k:
        return np.zeros(len(rows), dtype=np.bool_)
    late = [
        int(np.isin(hit, line[half:][line[half:] >= 0]).sum())
        for hit, line in zip(hits.rows, rows, strict=True)
    ]
    return np.array(late) > part * hits.k


def _replace(hits: Hits, which: NDArray[np.int64], better: Hits) -> None:
    hits.rows[which], hits.scores[which] = better.rows, better.scores
