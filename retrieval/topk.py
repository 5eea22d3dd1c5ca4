"""The one order of hits: descending score, then ascending row."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import parallel
from retrieval.values import Hits

_GRAIN = 100_000  # entries worth a thread: about 0.1 ms
_SMALL = 20_000  # entries not worth importing numba for, which takes as long as sorting two million


def top_k(scores: NDArray[Any], k: int, rows: NDArray[np.int64] | None = None) -> Hits:
    """The k best columns of each row of a score matrix.

    Args:
        scores: (Q, N) float32 or float64; -inf marks a column that must not be returned; no NaN. Scores are
            rounded to float32 first, so that the order is that of the scores handed out.
        k: how many to keep; more than N pads.
        rows: (N,) or (Q, N) the row each column stands for, -1 for padding; default 0 .. N-1.

    Returns:
        (Q, k) hits, ties by ascending row.
    """
    n_queries, n = scores.shape
    out = Hits.none(n_queries, k)
    if n == 0 or n_queries == 0:
        return out
    if scores.size <= _SMALL and "numba" not in sys.modules:
        _sort(scores, rows, out)
        return out
    from retrieval.kernels import best, frozen

    names = np.arange(n, dtype=np.int64) if rows is None else np.asarray(rows, dtype=np.int64)
    names = frozen(np.atleast_2d(names))
    scores = frozen(scores)

    def share(part: slice) -> None:
        own = names if len(names) == 1 else names[part]
        best(scores[part], own, out.rows[part], out.scores[part])

    parallel(share, n_queries, grain=max(1, _GRAIN // n))
    return out


def _sort(scores: NDArray[Any], rows: NDArray[np.int64] | None, out: Hits) -> None:
    """The same by sorting everything."""
    n_queries, n = scores.shape
    names = np.broadcast_to(np.arange(n) if rows is None else rows, (n_queries, n))
    rounded = scores.astype(np.float32)
    rounded[names < 0] = -np.inf
    order = np.lexsort((names, -rounded), axis=1)[:, : out.k]
    kept = np.take_along_axis(rounded, order, axis=1)
    out.scores[:, : kept.shape[1]] = kept
    out.rows[:, : kept.shape[1]] = np.where(kept > -np.inf, np.take_along_axis(names, order, axis=1), -1)


def merge(parts: Sequence[Hits], k: int) -> Hits:
    """The k best of several lists a query, a row occurring in one list only.

    Raises:
        ValueError: no list, or lists of different snapshots.
    """
    if not parts or len({part.snapshot for part in parts}) > 1:
        raise ValueError("merge needs at least one list, all of one snapshot")
    rows = np.concatenate([part.rows for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    merged = top_k(scores, k, rows)
    return Hits(merged.rows, merged.scores, parts[0].snapshot)
