"""Dense search under filters: recall and latency of a collection's planned search beside the same without a filter.

A filter keeps a share of the rows: drawn at random; those nearest to the query; those furthest from it, which hides the
whole neighbourhood a graph or a list would look in. Every query has a filter of its own and is one call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.dense_data import DenseData, K, Vectors
from benchmarks.dense_measure import Point, Row, latencies
from benchmarks.dense_tercet import searcher, snapshot_of
from indexing.planner import plan
from retrieval.bitmap import Bitmap
from retrieval.protocols import SearchRequest
from retrieval.values import Dense

SHARES = (0.001, 0.01, 0.1, 0.5)
FORMS = ("random", "correlated", "anti-correlated")


def filtered_rows(data: DenseData, point: Point, n_queries: int) -> Iterator[Row]:
    """A row for each filter, the unfiltered search first; ``x_unfiltered`` is how many times as long a query takes."""
    snapshot = snapshot_of(data.folder / point.variant.folder)
    index = snapshot.segments[0].index("dense", point.variant.kind)
    search = searcher(snapshot, point.variant.kind, point.knobs)
    queries, n = data.queries[:n_queries], len(data.documents)
    scores = queries @ np.asarray(data.documents).T
    order = np.argsort(-scores, axis=1)
    everything = [None] * len(queries)
    usual = {}
    for form, share in [("none", 1.0), *((form, share) for form in FORMS for share in SHARES)]:
        count = max(K, round(share * n))
        filters = (
            everything
            if form == "none"
            else [filter_of(form, order[q], count, q) for q in range(len(queries))]
        )
        recall, ms = _asked(search, queries, scores, filters)
        measured = latencies(ms)
        usual = usual or measured
        yield {
            "bench": "dense_filters", "data": data.name, "engine": "tercet",
            "setting": point.setting, "k": K, "threads": 1,
            "filter": form, "kept": share, "plan": plan(index, count, n, K).action, "recall": round(recall, 4),
            **measured,
            **{f"x_unfiltered_{name[3:]}": round(ms / usual[name], 2) for name, ms in measured.items()},
        }  # fmt: skip


def filter_of(form: str, order: NDArray[np.int64], count: int, query: int) -> Bitmap:
    """The rows a filter lets through; ``order`` has all rows, the nearest first."""
    mask = np.zeros(len(order), dtype=np.bool_)
    if form == "random":
        mask[np.random.default_rng([3, query]).permutation(len(order))[:count]] = True
    else:
        mask[order[:count] if form == "correlated" else order[-count:]] = True
    return Bitmap.from_mask(mask)


def _asked(
    search, queries: Vectors, scores: Vectors, filters: list[Bitmap | None]
) -> tuple[float, NDArray[np.float64]]:
    """Recall and milliseconds of each query, the second time it is asked."""
    ms, good, wanted = np.empty(len(queries)), 0, 0
    for query, allowed in enumerate(filters):
        asked, request = Dense(queries[query : query + 1]), SearchRequest(k=K, allowed=allowed)
        found = search.search_encoded(asked, request).rows[0]
        start = time.perf_counter()
        search.search_encoded(asked, request)
        ms[query] = 1e3 * (time.perf_counter() - start)
        reachable = scores[query] if allowed is None else scores[query][allowed.rows()]
        best = np.sort(reachable)[::-1][:K]
        wanted += len(best)
        good += int((scores[query][found[found >= 0]] >= best[-1] - 1e-6).sum())
    return good / wanted, ms
