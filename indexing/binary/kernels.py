"""The compiled first pass: every row compared with a query, the best kept.

A *key* is a row with its estimated score as one integer that sorts by score, then by falling row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.binary.codes import LANES, PLANES
from indexing.compiled import INT, entry, filled, given, kernel

import numba  # isort: skip  # after indexing.compiled, which says where numba caches
from numba.core import types  # isort: skip
from numba.extending import intrinsic  # isort: skip

_TOP = 2**PLANES - 1


def _table(dtype: Any, ndim: int) -> Any:
    """The type of an array of several axes that is read."""
    return numba.types.Array(numba.from_dtype(dtype), ndim, "C", readonly=True)


@intrinsic  # type: ignore[misc]
def ones(context: Any, word: Any) -> Any:
    """How many bits of a uint64 are set; numba has no word for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@kernel
def to_key(score: np.float32, row: int) -> np.uint64:
    """A score and its row as a key, for scores of either sign."""
    bits = np.float32(score).view(np.uint32)
    if bits >> np.uint32(31):
        ordered = np.uint32(~bits)
    else:
        ordered = np.uint32(bits | np.uint32(0x80000000))
    return (np.uint64(ordered) << np.uint64(32)) | np.uint64(0xFFFFFFFF - row)


@kernel
def to_score(key: np.uint64) -> np.float32:
    """The score of a key."""
    ordered = np.uint32(key >> np.uint64(32))
    if ordered >> np.uint32(31):
        return np.uint32(ordered ^ np.uint32(0x80000000)).view(np.float32)
    return np.uint32(~ordered).view(np.float32)


@kernel
def keep_best(keys: NDArray[np.uint64], size: int, count: int) -> int:
    """Move the largest keys to the front; returns how many there are."""
    if size <= count:
        return size
    best = np.partition(keys[:size], size - count)[size - count :]
    keys[:count] = best
    return count


@entry(
    _table(np.uint64, 3),
    given(np.float32),
    _table(np.uint64, 2),
    given(np.uint8),
    INT,
    INT,
    INT,
    filled(np.uint64),
    returns=INT,
)
def nearest(
    codes: NDArray[np.uint64],
    factors: NDArray[np.float32],
    planes: NDArray[np.uint64],
    bits: NDArray[np.uint8],
    dim: int,
    start: int,
    stop: int,
    keys: NDArray[np.uint64],
) -> int:
    """The keys of the best rows of a range for one query.

    Args:
        codes: (blocks, words, LANES).
        factors: (blocks * LANES,).
        planes: (words, PLANES) of the query.
        bits: the allowed rows, as in ``retrieval.bitmap``; empty allows all.
        dim: dimensions.
        start: the first row, a multiple of LANES.
        stop: the row after the last.
        keys: room for a multiple of the rows wanted, a quarter of which is wanted; written.

    Returns:
        How many of the keys are results, a quarter at most; they stand first, in no order.
    """
    count = len(keys) // 4
    size, floor, least = INT(0), np.uint64(0), np.float32(-np.inf)
    most = INT(_TOP) * dim
    away = np.empty(LANES, dtype=np.uint64)
    scores = np.empty(LANES, dtype=np.float32)
    for block in range(start // LANES, (stop + LANES - 1) // LANES):
        away[:] = np.uint64(0)
        for word in range(codes.shape[1]):
            line = codes[block, word]
            a, b, c, d = planes[word, 0], planes[word, 1], planes[word, 2], planes[word, 3]
            for lane in range(LANES):
                code = line[lane]
                away[lane] += (
                    ones(code ^ a)
                    + (ones(code ^ b) << np.uint64(1))
                    + (ones(code ^ c) << np.uint64(2))
                    + (ones(code ^ d) << np.uint64(3))
                )
        first = block * LANES
        for lane in range(LANES):
            scores[lane] = factors[first + lane] * np.float32(most - INT(2) * INT(away[lane]))
        for lane in range(min(LANES, stop - first)):
            if scores[lane] < least:
                continue
            row = first + lane
            key = to_key(scores[lane], row)
            if key > floor and (len(bits) == 0 or bits[row >> 3] >> (row & 7) & 1):
                if size == len(keys):
                    size = keep_best(keys, size, count)
                    floor = keys[:size].min()
                    least = to_score(floor)
                keys[size] = key
                size += 1
    return keep_best(keys, size, count)
