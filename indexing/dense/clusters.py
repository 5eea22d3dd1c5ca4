"""Rows grouped by k-means: cells for neighbours nearby, and an order that keeps similar rows together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import apply_threads
from retrieval.values import Dense

_SAMPLE = 64  # vectors a centroid that k-means sees
_ITERATIONS = 8
_CHUNK = 1 << 14  # rows assigned at a time: 25 MB at width 384


@dataclass(frozen=True, eq=False)
class Clusters:
    """Rows, cluster by cluster.

    Attributes:
        centroids: (C, D) float32.
        rows: (N,) all rows, those of a cluster together, ascending within it.
        bounds: (C + 1,) where each cluster begins in ``rows``.
    """

    centroids: NDArray[np.float32]
    rows: NDArray[np.int64]
    bounds: NDArray[np.int64]

    def members(self, cluster: int) -> NDArray[np.int64]:
        """The rows of one cluster."""
        return self.rows[self.bounds[cluster] : self.bounds[cluster + 1]]


def cluster_rows(vectors: Dense, count: int, *, seed: int) -> Clusters:
    """Group rows around k-means centroids by Euclidean distance (Lloyd's iteration in FAISS).

    The centroids come from at most 64 rows each, drawn by the seed; then every row joins its nearest one. The same
    vectors, count, seed and threads give the same clusters.

    Args:
        vectors: N rows, finite.
        count: clusters, from 1 to N.
        seed: of the sample and of the first centroids.
    """
    import faiss

    apply_threads()
    n = len(vectors)
    drawn = np.random.default_rng(seed).choice(n, min(n, count * _SAMPLE), replace=False)
    sample = np.ascontiguousarray(vectors.values[np.sort(drawn)], dtype=np.float32)
    kmeans = faiss.Kmeans(
        vectors.dim,
        count,
        niter=_ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLE,
    )
    kmeans.train(sample)
    nearest = np.empty(n, dtype=np.int64)
    for start in range(0, n, _CHUNK):
        part = np.ascontiguousarray(vectors.values[start : start + _CHUNK], dtype=np.float32)
        nearest[start : start + _CHUNK] = kmeans.assign(part)[1]
    bounds = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(nearest, minlength=count), out=bounds[1:])
    return Clusters(np.asarray(kmeans.centroids), np.argsort(nearest, kind="stable"), bounds)
