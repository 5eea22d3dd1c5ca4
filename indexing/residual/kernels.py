"""The compiled loops that compress token vectors and decompress them.

They share one file because numba's cache on disk notices a change in the file of the caller only: whoever changes
``operations`` removes the cached kernels beside this file. Import this module inside functions, and pass arrays through
``retrieval.kernels.frozen``, which turns half precision into its bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import kernel_cache

kernel_cache()

import numba  # noqa: E402

from indexing.residual.operations import LANES, add_1, add_2, add_4, add_8  # noqa: E402
from retrieval.intrinsics import read_ahead, widened  # noqa: E402

F = TypeVar("F", bound=Callable[..., Any])

# Sums may be taken in the order that suits the vector unit: compiled once, it is the same order for every vector.
loop: Callable[[F], F] = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "nnan"})

_AHEAD = 6  # tokens whose centroids are asked for ahead of their turn, since they lie anywhere in memory
_LINE = 32  # half-precision numbers of a cache line


@loop
def quantise(
    values: NDArray[np.float32],
    centroids: NDArray[np.uint16],
    codes: NDArray[np.int32],
    cutoffs: NDArray[np.float32],
    bits: int,
    packed: NDArray[np.uint8],
) -> None:
    """Residuals as bucket numbers, packed with the first dimension in the lowest bits.

    Args:
        values: (N, D).
        centroids: (C, D) half precision.
        codes: (N,) centroid of each vector.
        cutoffs: (2 ** bits - 1,) ascending.
        bits: 1, 2, 4 or 8.
        packed: (N, ceil(D * bits / 8)), written.
    """
    dim, each = values.shape[1], 8 // bits
    levels = np.empty(packed.shape[1] * each, dtype=np.uint8)
    residual = np.empty(dim, dtype=np.float32)
    for n in range(len(values)):
        centroid = centroids[codes[n]]
        for d in range(dim):
            residual[d] = values[n, d] - widened(centroid[d])
        levels[:] = 0
        for cutoff in cutoffs:
            for d in range(dim):
                levels[d] += np.uint8(residual[d] > cutoff)
        for byte in range(packed.shape[1]):
            total = np.uint8(0)
            for i in range(each):
                total |= np.uint8(levels[byte * each + i] << np.uint8(i * bits))
            packed[n, byte] = total


@loop
def decode(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int64],
    codes: NDArray[Any],
    packed: NDArray[np.uint8],
    centroids: NDArray[np.uint16],
    weights: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Decompress the vectors of some documents, one document after another.

    Args:
        indptr: (N + 1,) where the tokens of documents begin.
        rows: (M,) documents.
        codes: (T,) centroid of each token.
        packed: (T, P) its bucket numbers.
        centroids: (C, D) half precision.
        weights: (2 ** bits,) what a bucket stands for.
        out: (at least their tokens, D) written.
    """
    dim, width = centroids.shape[1], packed.shape[1]
    bits = 8 if len(weights) == 256 else 4 if len(weights) == 16 else len(weights) // 2
    steps = np.int64(dim // LANES)
    at = 0
    for row in rows:
        last = indptr[row + 1] - 1
        for token in range(indptr[row], last + 1):
            ahead = np.int64(codes[min(token + _AHEAD, last)]) * dim
            for d in range(0, dim, _LINE):
                read_ahead(centroids, ahead + d)
            code = np.int64(codes[token])
            places = (token * width, code * dim, at * dim)
            if bits == 4:
                square = add_4(packed, places[0], centroids, places[1], out, places[2], weights, steps)
            elif bits == 2:
                square = add_2(packed, places[0], centroids, places[1], out, places[2], weights, steps)
            elif bits == 1:
                square = add_1(packed, places[0], centroids, places[1], out, places[2], weights, steps)
            else:
                square = add_8(packed, places[0], centroids, places[1], out, places[2], weights, steps)
            line = out[at]
            for d in range(steps * LANES, dim):
                level = (np.int64(packed[token, (d * bits) >> 3]) >> ((d * bits) & 7)) & (len(weights) - 1)
                line[d] = weights[level] + widened(centroids[code, d])
                square += line[d] * line[d]
            scale = np.float32(1.0) / np.sqrt(max(square, np.float32(1e-30)))
            for d in range(dim):
                line[d] *= scale
            at += 1
