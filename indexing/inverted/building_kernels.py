"""The compiled loops that build an inverted index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import FLOAT, INT, entry, filled, given, kernel
from indexing.inverted.layout import BLOCK, BLOCK_BITS, LEVELS, WINDOW_BITS

_ROWS = (given(np.int64), given(np.int32), given(np.float32))


@kernel
def impact_of(value: np.float32, scale: float) -> int:
    """The impact of a weight: 1 to 255 for a positive one, 0 otherwise."""
    if value <= 0:
        return 0
    return min(255, max(1, np.int64(value / scale + 0.5)))


@entry(*_ROWS, FLOAT, INT, INT, filled(np.int64), filled(np.uint8), returns=INT)
def count_terms(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    scale: float,
    first: int,
    last: int,
    counts: NDArray[np.int64],
    peaks: NDArray[np.uint8],
) -> int:
    """Add the postings of rows first .. last-1 to the count of each term, and raise its largest impact.

    Returns:
        How many weights lie above what 255 stands for.
    """
    above = 0
    for position in range(indptr[first], indptr[last]):
        impact = impact_of(values[position], scale)
        if impact > 0:
            term = indices[position]
            counts[term] += 1
            peaks[term] = max(np.int64(peaks[term]), impact)
            above += values[position] / scale >= 255.5
    return above


@entry(
    *_ROWS, FLOAT, given(np.int32), INT, INT, INT, INT, filled(np.int64), filled(np.int64), filled(np.uint32)
)
def invert_terms(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    scale: float,
    rows: NDArray[np.int32],
    first_term: int,
    last_term: int,
    first_posting: int,
    n_windows: int,
    cursors: NDArray[np.int64],
    windows: NDArray[np.int64],
    postings: NDArray[np.uint32],
) -> None:
    """Write the postings of the terms first_term .. last_term-1.

    Args:
        cursors: (V,) where the postings of each term start; behind them afterwards.
        windows: see ``InvertedFiles``.
        postings: those of these terms alone; the first has the number first_posting.
    """
    width = n_windows + 1
    for place in range(len(rows)):
        if place & ((1 << WINDOW_BITS) - 1) == 0:
            window = place >> WINDOW_BITS
            for term in range(first_term, last_term):
                windows[term * width + window] = cursors[term]
        row = rows[place]
        for position in range(indptr[row], indptr[row + 1]):
            term = indices[position]
            if term < first_term or term >= last_term:
                continue
            impact = impact_of(values[position], scale)
            if impact > 0:
                inside = place & ((1 << WINDOW_BITS) - 1)
                postings[cursors[term] - first_posting] = np.uint32((inside << 8) | impact)
                cursors[term] += 1
    for term in range(first_term, last_term):
        windows[term * width + n_windows] = cursors[term]


@entry(given(np.uint32), given(np.int64), INT, INT, INT, INT, filled(np.uint8), filled(np.uint8))
def bound_line(
    postings: NDArray[np.uint32],
    windows: NDArray[np.int64],
    term: int,
    n_windows: int,
    first_posting: int,
    peak: int,
    largest: NDArray[np.uint8],
    line: NDArray[np.uint8],
) -> None:
    """One term's line of bounds; ``largest`` is scratch with room for twice as many blocks as the line has bytes."""
    largest[:] = 0
    width = n_windows + 1
    for window in range(n_windows):
        first_block = window << (WINDOW_BITS - BLOCK_BITS)
        for position in range(windows[term * width + window], windows[term * width + window + 1]):
            posting = np.int64(postings[position - first_posting])
            block = first_block + (posting >> (8 + BLOCK_BITS))
            largest[block] = max(np.int64(largest[block]), posting & 255)
    step = (peak + LEVELS - 1) // LEVELS
    half = len(line)
    for block in range(half):
        low = (np.int64(largest[block]) + step - 1) // step
        high = (np.int64(largest[half + block]) + step - 1) // step
        line[block] = low | (high << 4)


@entry(given(np.int64), given(np.int32), INT, filled(np.uint16), filled(np.uint32))
def share_out(
    counts: NDArray[np.int64],
    order: NDArray[np.int32],
    n_buckets: int,
    buckets: NDArray[np.uint16],
    slots: NDArray[np.uint32],
) -> None:
    """Put each term, the commonest first, into the bucket with the fewest postings so far."""
    loads = np.zeros(n_buckets, dtype=np.int64)
    sizes = np.zeros(n_buckets, dtype=np.int64)
    for term in order:
        bucket = np.argmin(loads)
        buckets[term] = bucket
        slots[term] = sizes[bucket]
        sizes[bucket] += 1
        loads[bucket] += counts[term] + 1


@entry(*_ROWS, given(np.int32), INT, INT, filled(np.int64))
def block_sizes(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    rows: NDArray[np.int32],
    first: int,
    last: int,
    sizes: NDArray[np.int64],
) -> None:
    """The postings of each of the blocks first .. last-1."""
    for block in range(first, last):
        sizes[block] = 0
        for place in range(block * BLOCK, min(len(rows), (block + 1) * BLOCK)):
            for position in range(indptr[rows[place]], indptr[rows[place] + 1]):
                sizes[block] += values[position] > 0


@kernel
def _write_blocks(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    scale: float,
    rows: NDArray[np.int32],
    buckets: NDArray[np.uint16],
    slots: NDArray[np.uint32],
    n_buckets: int,
    first: int,
    last: int,
    directory: NDArray[Any],
    forward: NDArray[np.uint32],
) -> None:
    cursors = np.empty(n_buckets + 1, dtype=np.int64)
    start = 0
    for block in range(first, last):
        cursors[:] = 0
        stop = min(len(rows), (block + 1) * BLOCK)
        for place in range(block * BLOCK, stop):
            for position in range(indptr[rows[place]], indptr[rows[place] + 1]):
                if values[position] > 0:
                    cursors[buckets[indices[position]] + 1] += 1
        line = directory[(block - first) * (n_buckets + 1) : (block - first + 1) * (n_buckets + 1)]
        for bucket in range(n_buckets):
            line[bucket] = cursors[bucket]
            cursors[bucket + 1] += cursors[bucket]
        line[n_buckets] = cursors[n_buckets]
        size = cursors[n_buckets]
        for place in range(block * BLOCK, stop):
            for position in range(indptr[rows[place]], indptr[rows[place] + 1]):
                impact = impact_of(values[position], scale)
                if impact > 0:
                    term = indices[position]
                    bucket = buckets[term]
                    head = (np.int64(slots[term]) << 12) | ((place & (BLOCK - 1)) << 8)
                    forward[start + cursors[bucket]] = np.uint32(head | impact)
                    cursors[bucket] += 1
        start += size


def _blocks_arguments(offsets: Any) -> tuple[Any, ...]:
    return (
        *(*_ROWS, FLOAT, given(np.int32), given(np.uint16), given(np.uint32), INT, INT, INT),
        *(filled(offsets), filled(np.uint32)),
    )


@entry(*_blocks_arguments(np.uint16))
def write_blocks(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    scale: float,
    rows: NDArray[np.int32],
    buckets: NDArray[np.uint16],
    slots: NDArray[np.uint32],
    n_buckets: int,
    first: int,
    last: int,
    directory: NDArray[np.uint16],
    forward: NDArray[np.uint32],
) -> None:
    """The forward copy of the blocks first .. last-1 and its directory, both arrays for these blocks alone."""
    _write_blocks(
        *(indptr, indices, values, scale, rows, buckets, slots, n_buckets, first, last, directory, forward)
    )


@entry(*_blocks_arguments(np.uint32))
def write_large_blocks(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    scale: float,
    rows: NDArray[np.int32],
    buckets: NDArray[np.uint16],
    slots: NDArray[np.uint32],
    n_buckets: int,
    first: int,
    last: int,
    directory: NDArray[np.uint32],
    forward: NDArray[np.uint32],
) -> None:
    """``write_blocks`` where a block has more postings than 16 bits can number."""
    _write_blocks(
        *(indptr, indices, values, scale, rows, buckets, slots, n_buckets, first, last, directory, forward)
    )
