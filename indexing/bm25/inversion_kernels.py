"""The compiled loops of inversion: rows renumbered, keyed, and turned into postings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import INT, entry, filled, given

_ROWS = (given(np.int64), given(np.int32), given(np.int32))


def _place_arguments(codes: Any) -> tuple[Any, ...]:
    return (
        *(given(np.int64), given(np.int32), given(np.int64), given(np.int64), given(np.int32), INT, INT, INT),
        *(filled(np.int64), filled(np.int32), filled(codes), given(np.float32), filled(np.float32)),
    )


@entry(*_ROWS, given(np.int32), filled(np.int32), filled(np.int32))
def renumber_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    frequencies: NDArray[np.int32],
    numbers: NDArray[np.int32],
    out_indices: NDArray[np.int32],
    out_frequencies: NDArray[np.int32],
) -> None:
    """Put new numbers for old and sort each row by them; indptr starts at 0."""
    longest = 0
    for row in range(len(indptr) - 1):
        longest = max(longest, indptr[row + 1] - indptr[row])
    keys = np.empty(longest, dtype=np.int64)
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        ascending = True
        for position in range(start, stop):
            key = (np.int64(numbers[indices[position]]) << 32) | np.int64(frequencies[position])
            keys[position - start] = key
            ascending = ascending and (position == start or keys[position - start - 1] < key)
        if not ascending:
            keys[: stop - start].sort()
        for position in range(start, stop):
            out_indices[position] = keys[position - start] >> 32
            out_frequencies[position] = keys[position - start] & 0xFFFFFFFF


@entry(*_ROWS, given(np.uint8), given(np.uint8), filled(np.int64))
def pair_keys(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    frequencies: NDArray[np.int32],
    bytes_of: NDArray[np.uint8],
    term_fields: NDArray[np.uint8],
    out: NDArray[np.int64],
) -> None:
    """The key of each entry, (tf * fields + field) * 256 + length byte.

    Args:
        indptr, indices, frequencies: a run of rows, indptr starting at 0.
        bytes_of: (rows * fields,) length bytes.
        term_fields: (V,).
        out: (nnz,).
    """
    n_fields = np.int64(len(bytes_of) // max(1, len(indptr) - 1))
    for row in range(len(indptr) - 1):
        for position in range(indptr[row], indptr[row + 1]):
            field = np.int64(term_fields[indices[position]])
            byte = np.int64(bytes_of[row * n_fields + field])
            out[position] = (np.int64(frequencies[position]) * n_fields + field) * 256 + byte


@entry(*_place_arguments(np.uint16))
def place_postings(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    keys: NDArray[np.int64],
    pairs: NDArray[np.int64],
    near: NDArray[np.int32],
    first_row: int,
    low: int,
    high: int,
    cursors: NDArray[np.int64],
    rows: NDArray[np.int32],
    codes: NDArray[Any],
    reference: NDArray[np.float32],
    peaks: NDArray[np.float32],
) -> None:
    """Write the postings of terms low .. high-1 that a run of rows holds.

    Args:
        indptr, indices: the run, starting at 0; keys: its ``pair_keys``.
        pairs: (C,) all keys, ascending; near: codes of the keys below len(near), to save the search.
        first_row: the row number of the run's first row.
        cursors: (high - low,) where the next posting of each term goes; moved on.
        rows, codes: the postings of these terms.
        reference: (C,) factor of each code; peaks: (high - low,) the largest per term, raised.
    """
    for row in range(len(indptr) - 1):
        for position in range(indptr[row], indptr[row + 1]):
            term = indices[position] - low
            if term < 0 or term >= high - low:
                continue
            key = keys[position]
            code = np.int64(near[key]) if key < len(near) else np.int64(np.searchsorted(pairs, key))
            target = cursors[term]
            cursors[term] = target + 1
            rows[target] = first_row + row
            codes[target] = code
            if reference[code] > peaks[term]:
                peaks[term] = reference[code]


@functools.cache
def place_kernel(codes: np.dtype[Any]) -> Callable[..., None]:
    """``place_postings`` for codes of 16 bits; of 32 for the rare segment with more than 65,536 distinct keys."""
    if codes == np.uint16:
        return place_postings
    wide: Callable[..., None] = entry(*_place_arguments(np.uint32))(place_postings.py_func)  # type: ignore[attr-defined]
    return wide
