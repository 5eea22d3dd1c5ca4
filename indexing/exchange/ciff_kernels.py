# mypy: disable-error-code="arg-type,return-value"
"""The compiled loops of CIFF: the postings of one list to and from bytes.

Types are numba's, whose integers are not Python's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import INT, entry, filled, given, kernel

WHOLE, CUT, WIRE, GAP, RANGE, FREQUENCY = 0, 1, 2, 3, 4, 5
"""What ``decode_postings`` found wrong."""

MOST_BYTES = 14
"""Of one posting: field, size, and two numbers with their fields."""


@kernel
def _varint(data: NDArray[np.uint8], at: int, stop: int) -> tuple[np.uint64, int]:
    """A varint and the position after it, -1 where there is none."""
    value = np.uint64(0)
    for position in range(10):
        if at + position >= stop:
            break
        byte = data[at + position]
        value |= np.uint64(byte & 0x7F) << np.uint64(7 * position)
        if byte < 0x80:
            return value, at + position + 1
    return np.uint64(0), -1


@kernel
def _skip(data: NDArray[np.uint8], at: int, stop: int, wire: int) -> int:
    """The position after a field's value, -1 where it is cut off, -2 where the wire type is unknown."""
    if wire == 0:
        return _varint(data, at, stop)[1]
    if wire == 2:
        size, start = _varint(data, at, stop)
        return -1 if start < 0 or size > np.uint64(stop - start) else start + np.int64(size)
    if wire == 1 or wire == 5:
        end = at + (8 if wire == 1 else 4)
        return end if end <= stop else -1
    return -2


@kernel
def _posting(data: NDArray[np.uint8], at: int, stop: int) -> tuple[int, int, int]:
    """Gap and frequency of one Posting message, and what is wrong with it."""
    gap, frequency = np.int64(0), np.int64(0)
    while at < stop:
        key, start = _varint(data, at, stop)
        if start < 0:
            return gap, frequency, CUT
        end = _skip(data, start, stop, np.int64(key & np.uint64(7)))
        if end < 0:
            return gap, frequency, CUT if end == -1 else WIRE
        if key == 8:
            gap = np.int64(_varint(data, start, stop)[0])
        elif key == 16:
            frequency = np.int64(_varint(data, start, stop)[0])
        at = end
    return gap, frequency, WHOLE


@entry(given(np.uint8), INT, filled(np.int32), filled(np.int32), filled(np.int64))
def decode_postings(
    data: NDArray[np.uint8],
    n_rows: int,
    out_rows: NDArray[np.int32],
    out_frequencies: NDArray[np.int32],
    out_facts: NDArray[np.int64],
) -> None:
    """Read a PostingsList message.

    Args:
        data: its bytes.
        n_rows: rows must be below.
        out_rows, out_frequencies: filled from the start; half as long as data is always enough.
        out_facts: (6,) filled with the number of postings, where the term starts and stops, df, what is wrong, and
            the byte where it is.
    """
    out_facts[:] = 0
    at, count, row = 0, 0, np.int64(0)
    while at < len(data):
        out_facts[5] = at
        key, start = _varint(data, at, len(data))
        end = _skip(data, start, len(data), np.int64(key & np.uint64(7))) if start >= 0 else -1
        if end < 0:
            out_facts[4] = CUT if end == -1 else WIRE
            return
        if key == 10:
            out_facts[1], out_facts[2] = _varint(data, start, end)[1], end
        elif key == 16:
            out_facts[3] = np.int64(_varint(data, start, end)[0])
        elif key == 34:
            gap, frequency, wrong = _posting(data, _varint(data, start, end)[1], end)
            if wrong == WHOLE and (gap < 0 or (gap == 0 and count > 0)):
                wrong = GAP
            elif wrong == WHOLE and gap >= n_rows - row:
                wrong = RANGE
            elif wrong == WHOLE and not 0 < frequency < 1 << 31:
                wrong = FREQUENCY
            if wrong != WHOLE:
                out_facts[4] = wrong
                return
            row += gap
            out_rows[count], out_frequencies[count] = row, frequency
            count += 1
        at = end
    out_facts[0] = count


@kernel
def _put(value: int, out: NDArray[np.uint8], at: int) -> int:
    while value > 0x7F:
        out[at] = value & 0x7F | 0x80
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@entry(given(np.int32), given(np.int32), filled(np.uint8), returns=INT)
def encode_postings(rows: NDArray[np.int32], frequencies: NDArray[np.int32], out: NDArray[np.uint8]) -> int:
    """Write the postings of a list as its field 4.

    Args:
        rows: (P,) ascending.
        frequencies: (P,) above 0.
        out: at least P * MOST_BYTES.

    Returns:
        How many bytes were written.
    """
    at, before = 0, 0
    for position in range(len(rows)):
        gap = rows[position] - before
        before = rows[position]
        out[at] = 34
        body = at + 2  # a posting takes at most 12 bytes, whose number takes one
        end = body
        if gap > 0:
            out[end] = 8
            end = _put(gap, out, end + 1)
        out[end] = 16
        end = _put(frequencies[position], out, end + 1)
        out[at + 1] = end - body
        at = end
    return at
