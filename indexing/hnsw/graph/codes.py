"""Stored vectors as one byte a component, whose integer inner products order rows like the real ones.

One scale serves all components and rows, so a product of codes is a product of vectors, rounded, in steps of the same
size. Components beyond the scale are clipped to it. A collection's segments have scales of their own: codes only choose
candidates within a segment, and what segments compare are exact scores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.values import Dense
from retrieval.values.storage import release_pages

LARGEST = 127
"""Codes go from -127 to 127: rounding is symmetric, and -128 would have no opposite."""

_WIDTH = 64  # components that are compared at once: codes are padded with zeros to a multiple
_ROWS = 8192  # rows encoded at a time
_SAMPLE = 8192  # rows the scale is chosen by
_COVERED = 0.99999
"""Share of the components that are not clipped. With 0.9999 to 1 of those of MiniLM's vectors the best 16 by code hold
the true 10; clipping more loses some of them where a few dimensions are large, and clipping none loses all precision
where a single row is."""


def code_width(dim: int) -> int:
    """Components of a row of codes: the width of the vectors, padded."""
    return -(-dim // _WIDTH) * _WIDTH


def code_scale(vectors: Dense) -> float:
    """What one step of a code stands for, from rows spread evenly over all; 1 where every component is zero."""
    step = max(1, len(vectors) // _SAMPLE)
    sample = np.abs(np.asarray(vectors.values[::step], dtype=np.float32))
    release_pages(vectors.values)
    if not sample.any():
        return 1.0
    largest = np.quantile(sample, _COVERED, method="higher") or sample.max()
    return max(float(largest) / LARGEST, float(np.finfo(np.float32).tiny))


def rounded(values: NDArray[np.floating], scale: float) -> NDArray[np.int8]:
    """Codes (N, W) of vectors (N, D): the nearest number of steps, clipped, and zeros from D to W."""
    codes = np.zeros((len(values), code_width(values.shape[1])), dtype=np.int8)
    steps = np.rint(np.asarray(values, dtype=np.float32) / np.float32(scale))
    codes[:, : values.shape[1]] = np.clip(steps, -LARGEST, LARGEST)
    return codes


def lengths(vectors: Dense) -> NDArray[np.float64]:
    """(N,) Euclidean norms."""
    norms = np.empty(len(vectors), dtype=np.float64)
    for start in range(0, len(vectors), _ROWS):
        chunk = np.asarray(vectors.values[start : start + _ROWS], dtype=np.float64)
        norms[start : start + len(chunk)] = np.linalg.norm(chunk, axis=1)
        release_pages(vectors.values)
    return norms


def levelled_codes(vectors: Dense, norms: NDArray[np.float64]) -> NDArray[np.int8]:
    """(N, W) codes of the vectors with a component more that makes all of them as long as the longest.

    The inner product of two such falls as the Euclidean distance of the vectors grows (Bachrach et al., RecSys 2014);
    that of vectors of different lengths is largest with the longest, which then are everyone's neighbours, however
    few queries they answer.
    """
    longest = float(norms.max(initial=0.0))

    def levelled(rows: slice) -> NDArray[np.float32]:
        missing = np.sqrt(np.maximum(longest**2 - norms[rows] ** 2, 0.0))
        values = np.asarray(vectors.values[rows], dtype=np.float32)
        return np.concatenate([values, missing[:, None].astype(np.float32)], axis=1)

    scale = code_scale(Dense(levelled(slice(None, None, max(1, len(vectors) // _SAMPLE)))))
    codes = np.zeros((len(vectors), code_width(vectors.dim + 1)), dtype=np.int8)
    for start in range(0, len(vectors), _ROWS):
        part = slice(start, start + _ROWS)
        codes[part] = rounded(levelled(part), scale)
        release_pages(vectors.values)
    return codes


def write_codes(path: Path, vectors: Dense, scale: float, progress: Callable[[int], None]) -> None:
    """Write the codes of all rows as one .npy."""
    shape = (len(vectors), code_width(vectors.dim))
    if not len(vectors):
        np.save(path, np.zeros(shape, dtype=np.int8))
        return
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.int8, shape=shape)
    for start in range(0, len(vectors), _ROWS):
        part = slice(start, min(start + _ROWS, len(vectors)))
        out[part] = rounded(vectors.values[part], scale)
        release_pages(vectors.values)
        progress(part.stop - part.start)
    out.flush()
    release_pages(out)
