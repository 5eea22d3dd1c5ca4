"""More vectors than there are texts: real ones, and others drawn from the neighbourhoods of these.

The first rows are real. Every further row belongs to one of them, each in turn, and is a draw from the Gaussian of its
neighbourhood: the mean of itself and its NEIGHBOURS nearest real rows, plus their deviations from that mean, each times
a standard normal number, over sqrt(NEIGHBOURS). That is noise along the local principal components, as long as these
are, and the row lies where interpolation between its neighbours would put it, but as far from them as they are from
each other. NOISE times the length of that deviation is added in the direction between two real rows drawn at random,
so that no row lies quite in the span of 29 others. All rows have length 1.

Queries are real ones that took no part in this. A real query has rows that answer it, and the more rows the nearer;
drawn rows do not answer it. So a query is moved towards its nearest row by TOWARDS of its length, which brings its
distances close to those of real queries among as many real rows.

What comes out is compared with real vectors of the same number in docs/benchmarks.md (``dense_likeness``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from indexing.dense.scan import scan
from retrieval.values import Dense

Vectors = NDArray[np.float32]

NEIGHBOURS = 28
NOISE = 0.3
TOWARDS = 0.1
_BLOCK = 10_000  # rows drawn together, with a generator of their own


def resampled(real: Vectors, n: int, seed: int = 0) -> Vectors:
    """(n, D) float32 rows of length 1, the first of them real; fewer are the first of more.

    Args:
        real: (N, D), of length 1, more than NEIGHBOURS.
        n: rows wanted.
        seed: of what is drawn.
    """
    out = np.empty((n, real.shape[1]), dtype=np.float32)
    out[: len(real)] = real[:n]
    near = _neighbourhoods(real[: max(0, n - len(real))], real)
    for block, start in enumerate(range(len(real), n, _BLOCK)):
        stop = min(start + _BLOCK, n)
        bases = np.arange(start, stop) % len(real)
        out[start:stop] = _drawn(real, near[bases], np.random.default_rng([seed, 6, block]))
    return out


def answered(queries: Vectors, documents: Vectors) -> Vectors:
    """(Q, D) queries of length 1, each moved towards its nearest document.

    Args:
        queries: (Q, D) real ones, of length 1.
        documents: (N, D) of ``resampled``.
    """
    nearest = scan(Dense(documents), 1.001, Dense(queries), 1).rows[:, 0]
    moved = queries + np.float32(TOWARDS) * documents[nearest]
    return moved / _length(moved)


def _neighbourhoods(rows: Vectors, real: Vectors) -> NDArray[np.int64]:
    """(N, 1 + NEIGHBOURS) the nearest real rows of each, itself among them."""
    step = 4096
    parts = [
        scan(Dense(real), 1.001, Dense(rows[start : start + step]), 1 + NEIGHBOURS).rows
        for start in range(0, len(rows), step)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 1 + NEIGHBOURS), dtype=np.int64)


def _drawn(real: Vectors, near: NDArray[np.int64], rng: np.random.Generator) -> Vectors:
    """A row for each neighbourhood (N, K)."""
    n, size = near.shape
    # a whole block is drawn, whatever is wanted of it, so that fewer are the first of more
    factors = rng.standard_normal((_BLOCK, size), dtype=np.float32)[:n]
    ends = rng.integers(len(real), size=(2, _BLOCK))[:, :n]
    factors -= factors.mean(axis=1, keepdims=True)  # deviations from the mean of the neighbourhood
    away = _combined(real, near, factors / np.float32(np.sqrt(NEIGHBOURS)))
    mean = _combined(real, near, np.full_like(factors, 1 / size))
    across = real[ends[0]] - real[ends[1]]
    across *= NOISE * _length(away) / np.maximum(_length(across), 1e-6)
    rows = mean + away + across
    return rows / _length(rows)


def _combined(real: Vectors, near: NDArray[np.int64], weights: Vectors) -> Vectors:
    """(N, D) sums of weighted real rows."""
    n, size = near.shape
    starts = np.arange(0, n * size + 1, size)
    return csr_array((weights.ravel(), near.ravel(), starts), shape=(n, len(real))) @ real


def _length(rows: Vectors) -> Vectors:
    return np.linalg.norm(rows, axis=1, keepdims=True)
