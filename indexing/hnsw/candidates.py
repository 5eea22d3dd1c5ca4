"""What the index kind ``hnsw`` and its backends say to each other about a search."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from indexing.dense.scan import rank_rows
from retrieval.bitmap import Bitmap
from retrieval.values import Dense, Hits


class Walk(NamedTuple):
    """How to walk.

    Attributes:
        ef: candidates kept on the ground level, at least k.
        rescored: how many of them are scored by the stored vectors, where something else chooses them; at least k.
        prefix: components compared on the way, where codes are compared; None for all.
    """

    ef: int
    rescored: int
    prefix: int | None = None


class Graph(Protocol):
    """A backend's graph, opened."""

    def best(self, queries: NDArray[np.float32], k: int, walk: Walk, allowed: Bitmap | None) -> Hits:
        """Up to k allowed rows of those a walk finds, by their exact scores, ties by row.

        Args:
            queries: (Q, D), finite.
            k: results wanted, at most the number of rows.
            walk: how to walk; its ``ef`` may exceed the number of rows.
            allowed: the only rows that may be returned; None for all.
        """
        ...


def rank_allowed(
    vectors: Dense, queries: NDArray[np.float32], rows: NDArray[np.int64], k: int, allowed: Bitmap | None
) -> Hits:
    """The k best of the candidates (Q, C) that a walk without a filter found, -1 being none."""
    if allowed is not None:
        rows = np.where((rows >= 0) & (allowed.bits[rows >> 3] >> (rows & 7) & 1 == 1), rows, -1)
    return rank_rows(vectors, queries, rows, k)
