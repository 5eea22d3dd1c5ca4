"""What the order of insertion does to a graph's recall, measured on the vectors and queries at hand."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.dense.scan import score_rows
from indexing.hnsw.index import HnswIndex
from indexing.hnsw.insertion_order import ORDERS, insertion_order
from retrieval.protocols import SearchRequest
from retrieval.values import Dense

EFS = (10, 20, 40, 80, 160)
"""Candidates of a walk at which recall is measured."""


@dataclass(frozen=True)
class OrderRecall:
    """One order at one width of the walk.

    Attributes:
        order: a name of ``ORDERS``.
        seed: of everything drawn for it.
        ef: candidates kept during a walk.
        k: hits a query.
        recall: the share of hits that are as good as the exact ones.
        order_s: seconds it took to find the order.
        build_s: seconds it took to build the graph.
    """

    order: str
    seed: int
    ef: int
    k: int
    recall: float
    order_s: float
    build_s: float


def order_report(
    vectors: Dense,
    queries: Dense,
    truth: NDArray[np.int64],
    *,
    orders: Sequence[str] = ORDERS,
    efs: Sequence[int] = EFS,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[OrderRecall]:
    """Build the same graph once for each order and measure what searches through it find.

    Graphs are built in a temporary folder over the vectors in that order, with any backend, and searched as a
    collection searches them. They take the memory of one build and a copy of the vectors.

    Args:
        vectors: N rows, at least one.
        queries: Q, at least one.
        truth: (Q, k) the exact best rows of each query, k at most N.
        orders: names of ``ORDERS``.
        efs: widths of the walk, each at least k to mean something.
        parameters: of the index kind hnsw, but for its order; its defaults for others.
        seed: of the orders.
        progress: called with numbers of rows inserted.

    Returns:
        A row for each order and width, in that order.

    Raises:
        ConfigError: no such order or parameter.
        ValueError: no vectors or queries, or as many exact answers as queries are not there.
    """
    if not len(vectors) or not len(queries) or len(truth) != len(queries) or not truth.shape[1]:
        raise ValueError(
            f"recall takes vectors, queries and k exact rows of each query; got {len(vectors)}, {len(queries)} and "
            f"{truth.shape}"
        )
    full = HnswIndex.parameters(
        {name: value for name, value in (parameters or {}).items() if name != "order"}
    )
    k = truth.shape[1]
    enough = score_rows(vectors, np.ascontiguousarray(queries.values, dtype=np.float32), truth).min(axis=1)
    found = []
    for order in orders:
        started = time.perf_counter()
        rows = insertion_order(vectors, order, seed=seed)
        ordered = time.perf_counter()
        inserted = vectors if rows is None else vectors.take(rows)
        with tempfile.TemporaryDirectory() as folder:
            index = _built(inserted, Path(folder), full, progress)
            built = time.perf_counter()
            for ef in efs:
                hits = replace(index, ef=ef).search(queries, SearchRequest(k=k))
                recall = float(np.mean(hits.scores >= enough[:, None]))
                found.append(OrderRecall(order, seed, ef, k, recall, ordered - started, built - ordered))
    return found


def _built(
    vectors: Dense, folder: Path, parameters: Mapping[str, Any], progress: Callable[[int], None]
) -> HnswIndex:
    """A graph whose rows were inserted as they stand."""
    HnswIndex.build(vectors, folder, parameters, memory_bytes=1 << 62, progress=progress)
    return HnswIndex.load(folder, vectors, parameters)
