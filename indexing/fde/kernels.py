"""The compiled loops of fixed dimensional encodings. Import this module inside functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.compute import kernel_cache

kernel_cache()

from numba import njit  # noqa: E402

_FAR = np.int64(1) << np.int64(62)  # no token


@njit(cache=True, nogil=True)
def blocks_of(sides: Any, bits: int, out: Any) -> None:
    """The block each token falls into, for every repetition.

    Args:
        sides: (T, >= R * bits) float32 products with the hyperplanes; positive sets a bit.
        bits: hyperplanes of a repetition.
        out: (T, R) int32, written: bit b of a number stems from hyperplane b.
    """
    for token in range(len(sides)):
        for repetition in range(out.shape[1]):
            block = 0
            for bit in range(bits):
                if sides[token, repetition * bits + bit] > 0.0:
                    block |= 1 << bit
            out[token, repetition] = block


@njit(cache=True, nogil=True)
def nearest_tokens(first: Any, bits: int, keys: Any) -> None:
    """For every block the token whose block differs in the fewest bits, the earliest of several.

    Distances on a hypercube are found one dimension after the other: the nearest of a block is its own, or the nearest
    of its neighbour across the bit, one further away.

    Args:
        first: (B,) the first token of each block, -1 where it is empty.
        bits: B is 2 ** bits.
        keys: (B,) int64, written: distance << 32 | token; at least 1 << 62 where there is no token at all.
    """
    step = np.int64(1) << np.int64(32)
    for block in range(len(first)):
        keys[block] = first[block] if first[block] >= 0 else _FAR
    for bit in range(bits):
        across = 1 << bit
        for block in range(len(first)):
            if block & across:
                continue
            low, high = keys[block], keys[block | across]
            keys[block] = min(low, high + step)
            keys[block | across] = min(high, low + step)


@njit(cache=True, nogil=True)
def add_up(indptr: Any, blocks: Any, projected: Any, stride: int, bits: int, width: int, out: Any) -> None:
    """Sum the projected tokens of each block: the encodings of queries.

    Args:
        indptr: (N + 1,) int64 into the tokens, from 0.
        blocks: (T, R) int32.
        projected: (T, >= (R - 1) * stride + width) float32.
        stride: where the next repetition's projection begins; 0 where all share one.
        bits: a repetition has 2 ** bits blocks.
        width: dimensions of a projected token.
        out: (N, R * 2 ** bits * width) float32, zeros; written.
    """
    for row in range(len(indptr) - 1):
        for repetition in range(blocks.shape[1]):
            source = repetition * stride
            for token in range(indptr[row], indptr[row + 1]):
                at = ((repetition << bits) + blocks[token, repetition]) * width
                for d in range(width):
                    out[row, at + d] += projected[token, source + d]


@njit(cache=True, nogil=True)
def average(
    indptr: Any,
    blocks: Any,
    projected: Any,
    stride: int,
    bits: int,
    width: int,
    power: float,
    fill: bool,
    out: Any,
) -> None:
    """Divide what ``add_up`` summed by the number of tokens to a power, and fill the blocks without any.

    Args:
        indptr, blocks, projected, stride, bits, width: as for ``add_up``.
        power: 1 makes means of the sums, 0 leaves them.
        fill: whether an empty block gets the token of ``nearest_tokens``.
        out: (N, R * 2 ** bits * width) float32 sums, changed.
    """
    n_repetitions, n_blocks = blocks.shape[1], 1 << bits
    first, keys = np.empty(n_blocks, dtype=np.int64), np.empty(n_blocks, dtype=np.int64)
    counts = np.empty(n_blocks, dtype=np.int64)
    for row in range(len(indptr) - 1):
        for repetition in range(n_repetitions):
            source = repetition * stride
            counts[:] = 0
            first[:] = -1
            for token in range(indptr[row], indptr[row + 1]):
                block = blocks[token, repetition]
                if counts[block] == 0:
                    first[block] = token
                counts[block] += 1
            if fill:
                nearest_tokens(first, bits, keys)
            for block in range(n_blocks):
                at = ((repetition << bits) + block) * width
                if counts[block] > 1:
                    scale = np.float32(np.float64(counts[block]) ** -power)
                    for d in range(width):
                        out[row, at + d] *= scale
                elif counts[block] == 0 and fill and keys[block] < _FAR:
                    token = keys[block] & np.int64(0xFFFFFFFF)
                    for d in range(width):
                        out[row, at + d] = projected[token, source + d]


@njit(cache=True, nogil=True)
def fold(vectors: Any, places: Any, signs: Any, out: Any) -> None:
    """A count sketch: every dimension is added to one of fewer, with a sign.

    Args:
        vectors: (N, F) float32.
        places: (F,) int64 below G.
        signs: (F,) float32, 1 or -1.
        out: (N, G) float32, zeros; written.
    """
    for row in range(len(vectors)):
        for d in range(vectors.shape[1]):
            out[row, places[d]] += signs[d] * vectors[row, d]


@njit(cache=True, nogil=True)
def carve(products: Any, threshold: float, groups: Any) -> int:
    """Give the first token without a group one of its own, with every other such token near it, until none is left.

    Args:
        products: (L, L) float32 inner products of tokens.
        threshold: of tokens that are near.
        groups: (L,) int64 of -1, written: the group of each token.

    Returns:
        The number of groups.
    """
    count = 0
    for first in range(len(groups)):
        if groups[first] >= 0:
            continue
        groups[first] = count
        for token in range(first + 1, len(groups)):
            if groups[token] < 0 and products[first, token] >= threshold:
                groups[token] = count
        count += 1
    return count


@njit(cache=True, nogil=True)
def to_bytes(vectors: Any, codes: Any, scales: Any) -> None:
    """Round each row to multiples of a 127th of its largest component.

    Args:
        vectors: (N, F) float32.
        codes: (N, F) int8, written.
        scales: (N,) float32, written: what a code of 1 stands for; 0 where all components are.
    """
    for row in range(len(vectors)):
        largest = np.float32(0.0)
        for d in range(vectors.shape[1]):
            largest = max(largest, abs(vectors[row, d]))
        scales[row] = largest / np.float32(127.0)
        inverse = np.float32(127.0) / largest if largest > 0.0 else np.float32(0.0)
        for d in range(vectors.shape[1]):
            codes[row, d] = np.int8(np.rint(vectors[row, d] * inverse))


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def byte_products(query: Any, codes: Any, scales: Any, rows: Any, out: Any) -> None:
    """Inner products with rows of ``to_bytes``.

    Args:
        query: (F,) float32.
        codes: (N, F) int8.
        scales: (N,) float32.
        rows: (C,) int64.
        out: (C,) float32, written.
    """
    for i in range(len(rows)):
        line, total = codes[rows[i]], np.float32(0.0)
        for d in range(len(query)):
            total += query[d] * np.float32(line[d])
        out[i] = total * scales[rows[i]]
