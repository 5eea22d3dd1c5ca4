"""The random matrices of fixed dimensional encodings, as columns a token vector is multiplied with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


def hyperplanes(dim: int, repetitions: int, bits: int, rng: np.random.Generator) -> Matrix:
    """(repetitions * bits, dim) unit normals of random hyperplanes through the origin.

    SimHash (Charikar, STOC 2002) draws them independently. Here as many as there are dimensions are orthogonal to each
    other, which spreads them evenly; each by itself is as random.
    """
    return _orthonormal(dim, repetitions * bits, rng)


def orthogonal(dim: int, repetitions: int, width: int, rng: np.random.Generator) -> Matrix:
    """(repetitions * width, dim) rows of random rotations, times sqrt(dim / width).

    One repetition keeps ``width`` dimensions of a rotated space and the next one the following, so that together they
    see every direction equally often: errors of independent projections, which cancel by chance only, are gone where
    repetitions * width is a multiple of dim.
    """
    return _orthonormal(dim, repetitions * width, rng) * np.float32(math.sqrt(dim / width))


def signs(dim: int, repetitions: int, width: int, rng: np.random.Generator) -> Matrix:
    """(repetitions * width, dim) of +-1 / sqrt(width), what MUVERA proposes (Achlioptas, PODS 2001)."""
    drawn = rng.integers(0, 2, (repetitions * width, dim)) * 2 - 1
    return (drawn / math.sqrt(width)).astype(np.float32)


def counts(dim: int, repetitions: int, width: int, rng: np.random.Generator) -> Matrix:
    """(repetitions * width, dim), a count sketch a repetition: every dimension goes to one place with a sign.

    Charikar, Chen & Farach-Colton, ICALP 2002; MUVERA's own code calls it the AMS sketch.
    """
    columns = np.zeros((repetitions, width, dim), dtype=np.float32)
    places = rng.integers(0, width, (repetitions, dim))
    drawn = rng.integers(0, 2, (repetitions, dim)) * 2 - 1
    np.put_along_axis(columns, places[:, None, :], drawn[:, None, :].astype(np.float32), axis=1)
    return columns.reshape(repetitions * width, dim)


def sparse(dim: int, repetitions: int, width: int, rng: np.random.Generator) -> Matrix:
    """(repetitions * width, dim), very sparse: +-sqrt(s / width) with probability 1 / (2 s) each, s = sqrt(dim).

    Li, Hastie & Church, "Very sparse random projections", KDD 2006.
    """
    s = math.sqrt(dim)
    drawn = rng.random((repetitions * width, dim))
    entries = np.where(drawn < 0.5 / s, 1.0, np.where(drawn < 1.0 / s, -1.0, 0.0))
    return (entries * math.sqrt(s / width)).astype(np.float32)


PROJECTIONS: dict[str, Callable[[int, int, int, np.random.Generator], Matrix]] = {
    "orthogonal": orthogonal,
    "signs": signs,
    "counts": counts,
    "sparse": sparse,
}
"""Name -> a matrix whose products keep inner products in expectation; "identity" does without one."""


def _orthonormal(dim: int, n: int, rng: np.random.Generator) -> Matrix:
    """(n, dim) unit vectors, every dim in a row orthogonal to each other."""
    blocks = [np.linalg.qr(rng.standard_normal((dim, dim)))[0].T for _ in range(-(-n // dim))]
    return np.concatenate([*blocks, np.zeros((0, dim))])[:n].astype(np.float32)
