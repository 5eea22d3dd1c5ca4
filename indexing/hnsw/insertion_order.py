"""In which order rows enter a graph that is built one row after another.

A row's first links go to rows that are there already, so the order shapes the graph: Elliott & Clark, "The Impacts of
Data, Ordering, and Intrinsic Dimensionality on Recall in Hierarchical Navigable Small Worlds", ICTIR 2024,
arXiv:2405.17813, found recall to move by up to 12 points, and points of high local intrinsic dimension best put first.
``indexing.hnsw.order_report`` measures that on vectors at hand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexing.dense.clusters import cluster_rows
from indexing.dense.intrinsic_dimension import local_dimensions
from retrieval.errors import unknown_name
from retrieval.values import Dense

ORDERS = ("given", "random", "lid-descending", "lid-ascending", "clustered")
"""As stored; drawn; by local intrinsic dimension; one k-means cluster after another."""


def insertion_order(
    vectors: Dense,
    name: str,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
) -> NDArray[np.int64] | None:
    """The rows in the order in which they are to be inserted.

    Args:
        vectors: N rows, finite.
        name: one of ``ORDERS``.
        seed: of the permutation and of k-means.
        progress: called with numbers of rows done while dimensions are estimated.

    Returns:
        (N,) a permutation of the rows, equal rows of the criterion by ascending row; None for "given".

    Raises:
        ConfigError: no such order.
    """
    n = len(vectors)
    if name not in ORDERS:
        raise unknown_name("insertion order", name, ORDERS)
    if name == "given":
        return None
    if name == "random":
        return np.random.default_rng(seed).permutation(n)
    if name == "clustered":
        return cluster_rows(vectors, max(1, round(n**0.5)), seed=seed).rows if n else np.arange(0)
    local = local_dimensions(vectors, seed=seed, progress=progress)
    return np.argsort(-local if name == "lid-descending" else local, kind="stable")
