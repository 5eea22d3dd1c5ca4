"""Spherical k-means of token vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.residual.nearest import NearestCentroid, unit_means


def spherical_kmeans(
    values: NDArray[Any],
    count: int,
    *,
    iterations: int,
    rng: np.random.Generator,
    progress: Callable[[int], None],
) -> NDArray[np.float32]:
    """Centroids of unit length by Lloyd's iteration over inner products (Dhillon & Modha, Machine Learning 42, 2001).

    It starts from distinct vectors drawn at random; a centroid that loses all its vectors is drawn anew.

    Args:
        values: (N, D) unit vectors, N at least count.
        count: number of centroids.
        iterations: rounds of assignment and averaging.
        rng: where the draws come from.
        progress: called with 1 after each iteration.

    Returns:
        (count, D).
    """
    centroids = values[np.sort(rng.choice(len(values), count, replace=False))].astype(np.float32)
    for _ in range(iterations):
        groups = NearestCentroid.over(centroids)(values)
        centroids, empty = unit_means(values, groups, count)
        centroids[empty] = values[rng.integers(0, len(values), int(empty.sum()))]
        progress(1)
    return centroids
