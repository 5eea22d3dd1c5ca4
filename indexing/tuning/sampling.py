"""The rows that a search over settings works on, and the rows that make queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.collection import CollectionSnapshot
from indexing.vectors import save_vectors
from retrieval.values import Dense


def live_rows(snapshot: CollectionSnapshot) -> NDArray[np.int64]:
    """The snapshot's rows that are not deleted, ascending."""
    masks = [
        np.ones(segment.n_rows, dtype=np.bool_) if segment.live is None else segment.live.mask()
        for segment in snapshot.segments
    ]
    return np.flatnonzero(np.concatenate(masks)) if masks else np.zeros(0, dtype=np.int64)


def draw(rows: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """At most so many of the rows, each as likely as any other, ascending."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def dense_rows(snapshot: CollectionSnapshot, name: str, rows: NDArray[np.int64]) -> Dense:
    """The rows' vectors of a dense representation."""
    vectors = snapshot.store(name).take(rows)
    if not isinstance(vectors, Dense):
        raise TypeError(f"{name} holds {type(vectors).__name__} vectors")
    return vectors


def mapped(vectors: Dense, folder: Path) -> Dense:
    """Vectors stored in a new folder and mapped, as a segment's are."""
    save_vectors(folder, vectors)
    return Dense.load(folder)
