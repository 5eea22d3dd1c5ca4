"""Several ranked lists made one, as arrays from beginning to end, and the searcher that does so.

The rules, for all methods:

- each list counts to its own first ``depth`` hits, and is judged (minimum, maximum, mean) on those alone;
- a document missing from a list gets 0 from it, the least a list can give;
- an empty list gives nothing;
- where a searcher declares a ``floor`` (0 for BM25 and learned sparse vectors: what a document without a query term
  scores), a list shorter than was asked for ends with documents at the floor, so its minimum is the floor;
- contributions are weighted, summed in float64 and rounded to float32; ties go to the lower row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import parallel
from retrieval.encoders.transformer.passes import PASSES
from retrieval.errors import ConfigError, unknown_name
from retrieval.protocols import Explanation, Searcher, SearchRequest
from retrieval.values import Hits

Contribution = Callable[[Hits, float | None], NDArray[np.float64]]
"""From a list (Q, K) and its floor to what each hit is worth (Q, K), at least 0; padding may hold anything."""

_GRAIN = 8  # queries worth a thread: about 0.3 ms


def minmax(hits: Hits, floor: float | None = None) -> NDArray[np.float64]:
    """Scores stretched so that a list's last hit is worth 0 and its first 1; a constant list is worth 1.

    Args:
        floor: what documents score that the searcher does not return; the minimum of a list with padding.
    """
    real, scores = _real(hits)
    low = np.min(scores, axis=1, keepdims=True, initial=np.inf, where=real)
    if floor is not None:
        low = np.where(real.all(axis=1, keepdims=True), low, np.minimum(low, floor))
    high = np.max(scores, axis=1, keepdims=True, initial=-np.inf, where=real)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(high > low, (scores - low) / (high - low), 1.0)


def zscore(hits: Hits, floor: float | None = None) -> NDArray[np.float64]:
    """Standard deviations above the list's lowest score, plus 1; a constant list is worth 1.

    That is the z-score, moved so that a document missing from a list, at 0, stands one standard deviation below
    the worst that the list returned: the list did not want it, and says no more. Moving all of a list's scores
    alike cannot change a ranking.
    """
    real, scores = _real(hits)
    count = np.maximum(1, real.sum(axis=1, keepdims=True))
    low = np.min(scores, axis=1, keepdims=True, initial=np.inf, where=real)
    high = np.max(scores, axis=1, keepdims=True, initial=-np.inf, where=real)
    mean = np.sum(scores, axis=1, keepdims=True, where=real) / count
    deviation = np.sqrt(np.sum((scores - mean) ** 2, axis=1, keepdims=True, where=real) / count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(high > low, (scores - low) / deviation + 1.0, 1.0)


def reciprocal(hits: Hits, floor: float | None = None, *, k_rrf: float = 60.0) -> NDArray[np.float64]:
    """1 / (k_rrf + rank), ranks from 1: Cormack, Clarke & Buettcher, SIGIR 2009."""
    return np.broadcast_to(1.0 / (k_rrf + 1.0 + np.arange(hits.k)), hits.rows.shape)


METHODS: Mapping[str, Contribution] = {"minmax": minmax, "zscore": zscore, "rrf": reciprocal}


def reciprocal_rank(
    lists: Sequence[Hits],
    k_rrf: float = 60.0,
    weights: Sequence[float] | None = None,
    *,
    k: int | None = None,
    depth: int | None = None,
) -> Hits:
    """Sum weight / (k_rrf + rank) over the lists: Cormack, Clarke & Buettcher, SIGIR 2009.

    Args:
        lists: at least one; equal Q, each row at most once a query; their K may differ.
        k_rrf: how slowly ranks lose worth; 60 in the paper.
        weights: one a list, not negative; default 1 each.
        k: results wanted; default as many as the longest list has columns.
        depth: hits of each list that count; default all.

    Raises:
        ValueError: no lists, of different snapshots or Q, or impossible weights.
    """
    if not k_rrf >= 0:
        raise ValueError(f"k_rrf is {k_rrf}; it must not be negative")
    return _fuse(lists, partial(reciprocal, k_rrf=k_rrf), weights, k, depth)


def weighted_sum(
    lists: Sequence[Hits],
    weights: Sequence[float] | None = None,
    normalization: str = "minmax",
    *,
    k: int | None = None,
    depth: int | None = None,
) -> Hits:
    """Sum weight x normalised score over the lists.

    Args:
        lists: at least one; equal Q, each row at most once a query; their K may differ.
        weights: one a list, not negative; default 1 each.
        normalization: "minmax" or "zscore".
        k: results wanted; default as many as the longest list has columns.
        depth: hits of each list that count; default all.

    Raises:
        ConfigError: no such normalization.
        ValueError: no lists, of different snapshots or Q, or impossible weights.
    """
    known = {"minmax": minmax, "zscore": zscore}
    if normalization not in known:
        raise unknown_name("normalization", normalization, known)
    return _fuse(lists, known[normalization], weights, k, depth)


def _fuse(
    lists: Sequence[Hits],
    contribution: Contribution,
    weights: Sequence[float] | None,
    k: int | None,
    depth: int | None,
    floors: Sequence[float | None] | None = None,
) -> Hits:
    if not lists:
        raise ValueError("fusion needs at least one list")
    if len({hits.snapshot for hits in lists}) > 1:
        raise ValueError("the lists belong to different snapshots; search all of them in one")
    if len({len(hits) for hits in lists}) > 1:
        raise ValueError(f"the lists answer different numbers of queries: {[len(hits) for hits in lists]}")
    if (k is not None and k < 1) or (depth is not None and depth < 1):
        raise ValueError(f"k and depth are at least 1, got k={k} depth={depth}")
    weighing = [1.0] * len(lists) if weights is None else [float(weight) for weight in weights]
    if len(weighing) != len(lists) or not all(0 <= weight < np.inf for weight in weighing):
        raise ValueError(f"{len(lists)} lists need as many weights, none negative; got {weighing}")
    cut = [hits if depth is None or hits.k <= depth else hits.cut(depth) for hits in lists]
    out = Hits.none(len(cut[0]), max(hits.k for hits in lists) if k is None else k, cut[0].snapshot)
    if len(out) == 0:
        return out
    from retrieval.kernels import frozen, sum_by_row

    def share(part: slice) -> None:
        worth = [
            weight * contribution(hits[part], floor)
            for hits, weight, floor in zip(cut, weighing, floors or [None] * len(cut), strict=True)
        ]
        rows = np.concatenate([hits.rows[part] for hits in cut], axis=1)
        sum_by_row(frozen(rows), frozen(np.concatenate(worth, axis=1)), out.rows[part], out.scores[part])

    parallel(share, len(out), grain=_GRAIN)
    return out


def _real(hits: Hits) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which places hold hits, and the scores in float64 with 0 in the others."""
    real = hits.rows >= 0
    return real, np.where(real, hits.scores, 0.0).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Fused:
    """Several searchers of one snapshot as one.

    The default, equal weights after min-max over each list's first 1,000 hits (``SearchRequest.depth``), was
    chosen before any test collection was looked at: it needs no tuning and keeps the distances within a list,
    which ranks forget.

    Attributes:
        parts: (name, searcher, weight) each.
        method: one of ``METHODS``.
        documents: from rows (Q, K) to the documents they are chunks of (-1 stays -1), numbered in the order of
            their rows. Two searchers may find a document by different chunks; given this, the document is fused,
            and stands in the result by the chunk of the part that contributes most. None where every row is
            a document.
    """

    parts: tuple[tuple[str, Searcher, float], ...]
    method: str = "minmax"
    documents: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("fusion method", self.method, METHODS)
        if not self.parts:
            raise ConfigError("fusion needs at least one searcher")
        if not all(0 <= weight < np.inf for _, _, weight in self.parts):
            weights = {name: weight for name, _, weight in self.parts}
            raise ConfigError(f"fusion weights are finite and not negative, got {weights}")

    def search(self, queries: Sequence[str], request: SearchRequest) -> Hits:
        """The k best documents of each query by the weighted sum over each part's first ``depth`` hits.

        With a depth below k fewer than k documents may come back: depth is what each part contributes.
        """
        lists = self._lists(queries, request)
        if self.documents is None:
            return self._sum(lists, request.k)
        named = [Hits(self.documents(hits.rows), hits.scores, hits.snapshot) for hits in lists]
        fused = self._sum(named, request.k)
        rows = np.full(fused.rows.shape, -1, dtype=np.int64)
        most = np.full(fused.rows.shape, -np.inf)
        for own, hits, floor, (_, _, weight) in zip(named, lists, self._floors(), self.parts, strict=True):
            worth = weight * METHODS[self.method](own, floor)
            for query in range(len(fused)):
                at, found = _places(own.rows[query], fused.rows[query])
                better = found & (worth[query][at] > most[query])
                rows[query][better] = hits.rows[query][at][better]
                most[query][better] = worth[query][at][better]
        return Hits(rows, fused.scores, fused.snapshot)

    def explain(
        self, query: str, rows: NDArray[np.integer], request: SearchRequest | None = None
    ) -> list[Explanation]:
        """The fused score of each row: a part a list, with normalised score x weight and the list's own reasons.

        Args:
            query: the text.
            rows: rows of the snapshot.
            request: the one the rows were found with, since depth and filter shape the normalisation.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        lists = self._lists([query], request or SearchRequest())
        names = [hits.rows if self.documents is None else self.documents(hits.rows) for hits in lists]
        wanted = chosen if self.documents is None else self.documents(chosen[None, :])[0]
        parts: list[list[Explanation]] = [[] for _ in chosen]
        for (name, searcher, weight), hits, own, floor in zip(
            self.parts, lists, names, self._floors(), strict=True
        ):
            worth = METHODS[self.method](Hits(own, hits.scores, hits.snapshot), floor)[0]
            at, found = _places(own[0], wanted)
            reasons = iter(searcher.explain(query, hits.rows[0][at[found]], request) if found.any() else [])
            for place, is_found, branch in zip(at.tolist(), found.tolist(), parts, strict=True):
                if not is_found:
                    depth = int((own[0] >= 0).sum())
                    branch.append(
                        Explanation(f"{name}: not among its first {depth}", 0.0, facts={"weight": weight})
                    )
                    continue
                facts: dict[str, float | int | str] = {
                    "rank": place + 1,
                    "score": float(hits.scores[0, place]),
                    "normalised": float(worth[place]),
                    "weight": weight,
                }
                branch.append(Explanation(name, float(weight * worth[place]), (next(reasons),), facts))
        label = f"sum of {len(self.parts)} lists ({self.method})"
        return [
            Explanation(label, float(np.float32(sum(part.value for part in branch))), tuple(branch))
            for branch in parts
        ]

    def _lists(self, queries: Sequence[str], request: SearchRequest) -> list[Hits]:
        deep = replace(request, k=request.depth)
        with PASSES.shared():  # parts with one model below them read the queries once
            return [searcher.search(queries, deep) for _, searcher, _ in self.parts]

    def _sum(self, lists: Sequence[Hits], k: int) -> Hits:
        weights = [weight for _, _, weight in self.parts]
        return _fuse(lists, METHODS[self.method], weights, k, None, self._floors())

    def _floors(self) -> list[float | None]:
        return [getattr(searcher, "floor", None) for _, searcher, _ in self.parts]


def _places(
    haystack: NDArray[np.int64], needles: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each needle stands in the unordered haystack (0 where it does not), and whether it does."""
    if len(haystack) == 0:
        return np.zeros(len(needles), dtype=np.int64), np.zeros(len(needles), dtype=np.bool_)
    order = np.argsort(haystack, kind="stable")
    at = order[np.minimum(np.searchsorted(haystack, needles, sorter=order), len(haystack) - 1)]
    found = (haystack[at] == needles) & (needles >= 0)
    return np.where(found, at, 0), found
