"""What vectors are like, in figures that decide how hard they are to search: real and generated ones side by side.

Dimension, distances and hubs all change with the number of rows, so sets are compared at the same number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.dense.intrinsic_dimension import global_dimension, maximum_likelihood
from indexing.dense.scan import scan
from retrieval.hubness import hubness, occurrences
from retrieval.values import Dense

Vectors = NDArray[np.float32]

SAMPLE = 1_000
HUB_ROWS = 10_000
K = 10


def likeness(documents: Vectors, queries: Vectors, first: int = 0) -> dict[str, Any]:
    """Figures of a set, the same for the same arguments.

    Args:
        documents: (N, D) of length 1.
        queries: (Q, D) of length 1.
        first: rows before it are not asked for their neighbours (they still are neighbours).

    Returns:
        ``lid_20`` and ``lid_100``: median local intrinsic dimension by maximum likelihood over so many neighbours;
        ``d_1``, ``d_10``, ``d_100``: median Euclidean distance to the neighbour of that rank, ``d_1_p10`` and ``_p90``
        its tenth and ninetieth percentile; ``d_mean`` between any two rows; the same with ``query_`` for queries;
        ``hub_skewness``: of how often a row is among the 10 nearest of others, within 10,000 rows drawn at random.
    """
    rng = np.random.default_rng(7)
    asked = first + rng.permutation(len(documents) - first)[:SAMPLE]
    around = _neighbour_distances(documents, documents[asked], own=asked)
    to_queries = _neighbour_distances(documents, queries[:SAMPLE])
    some = documents[rng.permutation(len(documents))[: 2 * SAMPLE]]
    half = len(some) // 2
    apart = np.sqrt(np.maximum(2 - 2 * np.einsum("nd,nd->n", some[:half], some[half : 2 * half]), 0))
    nearest = np.percentile(around[:, 0], [10, 90])
    figures = {
        **_of_distances(around),
        "d_1_p10": nearest[0],
        "d_1_p90": nearest[1],
        "d_mean": apart.mean(),
        **{f"query_{name}": value for name, value in _of_distances(to_queries).items()},
        "hub_skewness": _hub_skewness(documents[rng.permutation(len(documents))[:HUB_ROWS]]),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def _neighbour_distances(
    documents: Vectors, asked: Vectors, own: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """(Q, 100) ascending distances; a row that is asked for is no neighbour of its own."""
    hits = scan(Dense(documents), 1.001, Dense(asked), 101)
    distances = np.sqrt(np.maximum(2 - 2 * hits.scores.astype(np.float64), 0))
    if own is not None:
        distances[hits.rows == own[:, None]] = -1  # to the front
        distances.sort(axis=1)
        return distances[:, 1:]
    return distances[:, :100]


def _of_distances(distances: NDArray[np.float64]) -> dict[str, float]:
    found = {f"lid_{k}": global_dimension(maximum_likelihood(distances[:, :k])).median for k in (20, 100)}
    return found | {f"d_{k}": float(np.median(distances[:, k - 1])) for k in (1, 10, 100)}


def _hub_skewness(rows: Vectors) -> float:
    hits = scan(Dense(rows), 1.001, Dense(rows), K + 1).rows
    hits = np.where(hits == np.arange(len(rows))[:, None], -1, hits)
    return hubness(occurrences(hits, len(rows)), K).skewness
