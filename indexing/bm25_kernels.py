"""The compiled loops of BM25 search: term look-up, weights, and a windowed MaxScore traversal.

Compiled on first use and cached on disk; importing this module costs numba's import.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import kernel_cache

kernel_cache()
import numba  # noqa: E402

F = TypeVar("F", bound=Callable[..., Any])
kernel: Callable[[F], F] = numba.njit(cache=True, nogil=True)


def _array(dtype: Any) -> Any:
    """Read-only in the signature, so that mapped and fresh arrays call the same compiled code."""
    return numba.types.Array(dtype, 1, "C", readonly=True)


_U8, _U16, _I32, _I64, _U64, _F32 = (
    _array(dtype)
    for dtype in (
        numba.uint8,
        numba.uint16,
        numba.int32,
        numba.int64,
        numba.uint64,
        numba.float32,
    )
)
_STRINGS = (_U8, _I64, _U8)
_LOOK_UP = numba.void(*_STRINGS, _U64, _I32, _I64, *_STRINGS, numba.int32[::1], numba.uint64[::1])
_WEIGH = numba.void(_I64, _U8, _I64, _F32, numba.float32[::1])


def _search_signature(codes: Any) -> Any:
    return numba.void(
        *(_I64, _I32, _I32, numba.int64, numba.int64, _I32, _U64, _F32),
        *(_I64, _I32, codes, _F32, _F32, numba.float64, numba.int64, _U8),
        *(numba.float32[::1], numba.int64[:, ::1], numba.float32[:, ::1]),
    )


def entry(signature: Any) -> Callable[[F], F]:
    """A kernel called from Python, compiled (or read from the cache) at import."""
    return numba.njit(signature, cache=True, nogil=True)


# No NaN ever enters the accumulators; without this the maximum of a block is not vectorised.
max_kernel: Callable[[F], F] = numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})

BLOCK = 32  # accumulators checked at once
WINDOW = 16_384  # rows of a window that most of the postings are read for; its accumulators stay in cache
WIDEST = 65_536  # rows of a window of which few postings are read
DENSE = 16  # with a posting per so many rows of a window, all accumulators are looked at
LOOK_UP_COST = 40  # postings that are read in the time one is looked up
SLACK = 1.00001  # bounds are rounded up by more than any sum of float32 can be off


@kernel
def hash_term(blob: NDArray[np.uint8], start: int, stop: int, field: int) -> np.uint64:
    """FNV-1a over the bytes and the field, then MurmurHash3's finaliser."""
    value = np.uint64(14695981039346656037)
    prime = np.uint64(1099511628211)
    for position in range(start, stop):
        value = (value ^ np.uint64(blob[position])) * prime
    value = (value ^ np.uint64(field)) * prime
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@kernel
def hash_terms(
    blob: NDArray[np.uint8], offsets: NDArray[np.int64], fields: NDArray[np.uint8]
) -> NDArray[np.uint64]:
    """(V,) hashes of a vocabulary."""
    out = np.empty(len(fields), dtype=np.uint64)
    for term in range(len(fields)):
        out[term] = hash_term(blob, offsets[term], offsets[term + 1], fields[term])
    return out


@entry(_LOOK_UP)
def look_up(
    blob: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    fields: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    term_of: NDArray[np.int32],
    buckets: NDArray[np.int64],
    known_blob: NDArray[np.uint8],
    known_offsets: NDArray[np.int64],
    known_fields: NDArray[np.uint8],
    out_terms: NDArray[np.int32],
    out_hashes: NDArray[np.uint64],
) -> None:
    """Number of each asked term in a segment, -1 when it is not there, and its hash.

    Args:
        blob, offsets, fields: the terms asked for.
        hashes: (V,) of the segment's terms, ascending; term_of: (V,) the term of each.
        buckets: (2^b + 1,) where the hashes with each value of their first b bits start.
        known_blob, known_offsets, known_fields: the segment's vocabulary, for comparison byte by byte.
    """
    shift = np.uint64(64)
    size = len(buckets) - 1
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    for term in range(len(fields)):
        start, stop = offsets[term], offsets[term + 1]
        value = hash_term(blob, start, stop, fields[term])
        out_hashes[term] = value
        out_terms[term] = -1
        bucket = np.int64(value >> shift) if shift < np.uint64(64) else 0
        for position in range(buckets[bucket], buckets[bucket + 1]):
            if hashes[position] != value:
                continue
            candidate = term_of[position]
            low = known_offsets[candidate]
            same = known_offsets[candidate + 1] - low == stop - start
            same = same and known_fields[candidate] == fields[term]
            for step in range(stop - start):
                if not same:
                    break
                same = known_blob[low + step] == blob[start + step]
            if same:
                out_terms[term] = candidate
                break


@entry(_WEIGH)
def weigh(
    frequencies: NDArray[np.int64],
    fields: NDArray[np.uint8],
    n_documents: NDArray[np.int64],
    boosts: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Weight of each term: the field's boost times Lucene's idf, ln(1 + (N - df + 0.5) / (df + 0.5))."""
    for term in range(len(fields)):
        field = fields[term]
        df = frequencies[term]
        if df == 0:
            out[term] = np.float32(0)
        else:
            idf = np.float32(math.log(1.0 + (n_documents[field] - df + 0.5) / (df + 0.5)))
            out[term] = boosts[field] * idf


@kernel
def first_at_least(rows: NDArray[np.int32], start: int, stop: int, row: int) -> int:
    """The first position from start on whose row is at least the given one (stop if none), by galloping."""
    if start >= stop or rows[start] >= row:
        return start
    step = 1
    low = start  # rows[low] < row
    while low + step < stop and rows[low + step] < row:
        low += step
        step <<= 1
    high = min(low + step, stop)  # rows[high] >= row, or the end
    while high - low > 1:
        middle = (low + high) >> 1
        if rows[middle] < row:
            low = middle
        else:
            high = middle
    return high


@kernel
def pack(score: np.float32, row: int) -> np.uint64:
    """A key that sorts by score, then by falling row; scores of 0 or more order as their bits."""
    return (np.uint64(np.float32(score).view(np.uint32)) << np.uint64(32)) | np.uint64(0xFFFFFFFF - row)


@kernel
def pack_row(row: int, score: np.float32) -> np.uint64:
    """A key that sorts by row."""
    return (np.uint64(row) << np.uint64(32)) | np.uint64(np.float32(score).view(np.uint32))


@kernel
def score_of(key: np.uint64) -> np.float32:
    """The score of a key."""
    return np.uint32(key >> np.uint64(32)).view(np.float32)


@kernel
def keep_best(keys: NDArray[Any], n: int, k: int) -> None:
    """Bring the k largest of the first n keys to the front, the k-th largest at k - 1 (Hoare's selection)."""
    low, high, wanted = 0, n - 1, k - 1
    while low < high:
        a, b, c = keys[low], keys[(low + high) >> 1], keys[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            return


@kernel
def order_terms(
    weights: NDArray[np.float32], hashes: NDArray[np.uint64], order: NDArray[np.int64], n: int
) -> None:
    """Shell sort of the first n positions by falling weight, then rising hash."""
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            item = order[i]
            j = i
            while j >= gap:
                other = order[j - gap]
                if weights[other] > weights[item] or (
                    weights[other] == weights[item] and hashes[other] <= hashes[item]
                ):
                    break
                order[j] = other
                j -= gap
            order[j] = item
        gap //= 3


@max_kernel
def column_maxima(values: NDArray[np.float32], n: int, out: NDArray[np.float32], width: int) -> None:
    """The largest of each column of n non-negative values, laid out in rows of the given width."""
    for column in range(width):
        out[column] = values[column]
    for low in range(width, n, width):
        for column in range(min(width, n - low)):
            value = values[low + column]
            out[column] = value if value > out[column] else out[column]


@max_kernel
def reaches(values: NDArray[np.float32], start: int, floor: np.float32) -> bool:
    """Whether one of BLOCK non-negative values is at least the floor."""
    best = np.float32(0)
    for position in range(start, start + BLOCK):
        value = values[position]
        best = value if value > best else best
    return best >= floor


@kernel
def add_postings(
    rows: NDArray[np.int32],
    codes: NDArray[Any],
    low: int,
    high: int,
    start: int,
    weight: np.float32,
    table: NDArray[np.float32],
    accumulators: NDArray[np.float32],
) -> None:
    """Add a run of postings to the accumulators of a window that begins at row start."""
    for position in range(low, high):
        accumulators[np.uint64(rows[position] - start)] += weight * table[codes[position]]


@kernel
def lower_bound(values: NDArray[np.float32], n: int, k: int, columns: NDArray[np.float32]) -> np.float32:
    """A score that at least k of the first n non-negative values reach: the k-th largest column maximum."""
    width = min(16 * k, n // 2)
    if width < k:
        return np.float32(0)
    column_maxima(values, n, columns, width)
    keep_best(columns, width, k)
    return columns[k - 1]


@kernel
def complete(
    score: np.float32,
    row: int,
    floor: np.float32,
    first: int,
    n_terms: int,
    rows: NDArray[np.int32],
    codes: NDArray[Any],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    weight: NDArray[np.float32],
    bound: NDArray[np.float64],
    table: NDArray[np.float32],
) -> np.float32:
    """Add the terms first .. n_terms-1 to a row's score; stops early, at 0, when it cannot reach the floor."""
    for term in range(first, n_terms):
        if score + bound[term] < floor:
            return np.float32(0)
        position = first_at_least(rows, low[term], high[term], row)
        low[term] = position
        if position < high[term] and rows[position] == row:
            score += weight[term] * table[codes[position]]
    return score


@entry(_search_signature(_U16))
def search(
    query_indptr: NDArray[np.int64],
    query_indices: NDArray[np.int32],
    query_frequencies: NDArray[np.int32],
    first: int,
    last: int,
    terms: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    weights: NDArray[np.float32],
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    codes: NDArray[Any],
    peaks: NDArray[np.float32],
    table: NDArray[np.float32],
    ratio: float,
    n: int,
    allowed: NDArray[np.uint8],
    accumulators: NDArray[np.float32],
    out_rows: NDArray[np.int64],
    out_scores: NDArray[np.float32],
) -> None:
    """The best rows of queries first .. last-1, exactly.

    A score is the sum, in float32 and in the order of falling term weight, of weight * table[code]. Rows
    are visited window by window. Terms whose bounds together cannot lift a row over the k-th best score so far
    are not read for new rows, only looked up for those rows that the other terms have brought near it (MaxScore:
    Turtle & Flood, IP&M 1995; in windows over accumulators, as in Strohman & Croft, SIGIR 2007).

    Args:
        query_indptr, query_indices, query_frequencies: the query batch.
        terms, hashes, weights: (V_q,) for each entry of the batch's vocabulary, see ``look_up`` and ``weigh``.
        indptr, rows, codes: postings by term.
        peaks: (V,) the largest reference factor among each term's postings.
        table: (C,) the factor of each code now; ratio: the most it exceeds the reference factor, as a quotient.
        n: rows of the segment.
        allowed: packed bits of the rows that may be returned; empty for all.
        accumulators: zeros, a multiple of BLOCK; zeros again afterwards.
        out_rows, out_scores: (Q, k), all filled in.
    """
    k = out_rows.shape[1]
    filtered = len(allowed) > 0
    room = 2 * k + 64
    widest = len(accumulators)
    columns = np.empty(widest, dtype=np.float32)
    keys = np.empty(room, dtype=np.uint64)
    candidates = np.empty(widest + 1, dtype=np.uint64)
    most = 1
    for query in range(first, last):
        most = max(most, query_indptr[query + 1] - query_indptr[query])
    order = np.empty(most, dtype=np.int64)
    unordered = np.empty(most, dtype=np.float32)
    tie_breaks = np.empty(most, dtype=np.uint64)
    weight = np.empty(most, dtype=np.float32)
    begin = np.empty(most, dtype=np.int64)
    cursor = np.empty(most, dtype=np.int64)
    end = np.empty(most, dtype=np.int64)
    bound = np.empty(most + 1, dtype=np.float64)

    for query in range(first, last):
        # --- the terms of the query, heaviest first
        n_terms = 0
        for position in range(query_indptr[query], query_indptr[query + 1]):
            entry = query_indices[position]
            if terms[entry] >= 0 and weights[entry] > 0:
                order[n_terms] = n_terms
                unordered[n_terms] = weights[entry] * np.float32(query_frequencies[position])
                tie_breaks[n_terms] = hashes[entry]
                end[n_terms] = terms[entry]
                n_terms += 1
        order_terms(unordered, tie_breaks, order, n_terms)
        for t in range(n_terms):
            begin[t] = end[order[t]]
        for t in range(n_terms):
            term = begin[t]
            weight[t] = unordered[order[t]]
            cursor[t] = indptr[term]
            end[t] = indptr[term + 1]
        bound[n_terms] = 0.0
        for t in range(n_terms - 1, -1, -1):
            bound[t] = bound[t + 1] + weight[t] * peaks[begin[t]] * ratio * SLACK

        found = 0
        floor = np.float32(1e-38)  # what a row must score at least; 0 is no hit
        essential = n_terms
        width = min(WINDOW, widest)
        expected = 0.0  # candidates a row, from the window before
        while True:
            while essential > 0 and bound[essential - 1] < floor:
                essential -= 1
            start = n
            for t in range(essential):
                if cursor[t] < end[t]:
                    start = min(start, np.int64(rows[cursor[t]]))
            if start >= n:
                break
            stop = min(n, start + width)

            # --- add up the terms that matter, and those that are cheaper to read than to look up
            total = 0
            read = 0
            while read < n_terms:
                low = cursor[read]
                if read >= essential:
                    low = first_at_least(rows, low, end[read], start)
                high = first_at_least(rows, low, end[read], stop)
                if read >= essential and high - low > LOOK_UP_COST * expected * (stop - start):
                    cursor[read] = low
                    break
                begin[read] = low
                cursor[read] = high
                add_postings(rows, codes, low, high, start, weight[read], table, accumulators)
                total += high - low
                read += 1
            rest = bound[read]

            # --- the rows that may be among the best, each once, accumulators cleared
            n_candidates = 0
            size = stop - start
            if total * DENSE > size:
                if not filtered and found < k:
                    floor = max(floor, lower_bound(accumulators, size, k, columns))
                needed = max(np.float32(1e-38), np.float32(floor - rest))
                for low in range(0, size, BLOCK):
                    if reaches(accumulators, low, needed):
                        for i in range(low, low + BLOCK):
                            candidates[n_candidates] = pack_row(start + i, accumulators[i])
                            n_candidates += accumulators[i] >= needed
                accumulators[: (size + BLOCK - 1) // BLOCK * BLOCK] = np.float32(0)
                width = min(WINDOW, widest)
            else:
                for t in range(read):
                    for position in range(begin[t], cursor[t]):
                        row = np.int64(rows[position])
                        score = accumulators[np.uint64(row - start)]
                        accumulators[np.uint64(row - start)] = np.float32(0)
                        if score > 0 and score + rest >= floor:
                            candidates[n_candidates] = pack_row(row, score)
                            n_candidates += 1
                if read < n_terms and read > 1 and n_candidates > 1:
                    candidates[:n_candidates].sort()  # look-ups go forward only
                width = widest

            # --- complete their scores and keep the best
            expected = n_candidates / size
            for c in range(n_candidates):
                row = np.int64(candidates[c] >> np.uint64(32))
                if filtered and not (allowed[row >> 3] >> (row & 7)) & 1:
                    continue
                score = score_of(candidates[c] << np.uint64(32))
                if read < n_terms:
                    score = complete(
                        score, row, floor, read, n_terms, rows, codes, cursor, end, weight, bound, table
                    )
                if score < floor:
                    continue
                keys[found] = pack(score, row)
                found += 1
                if found == room:
                    keep_best(keys, found, k)
                    found = k
                    floor = max(floor, score_of(keys[k - 1]))
            if found >= k:
                keep_best(keys, found, k)
                found = k
                # all later rows lose ties, so they must score more: the next larger float32
                floor = score_of(keys[k - 1] + (np.uint64(1) << np.uint64(32)))

        # --- best first
        best = keys[: min(found, k)]
        best.sort()
        n_best = len(best)
        for position in range(n_best):
            key = best[n_best - 1 - position]
            out_scores[query, position] = score_of(key)
            out_rows[query, position] = np.int64(0xFFFFFFFF) - np.int64(key & np.uint64(0xFFFFFFFF))
        for position in range(n_best, k):
            out_scores[query, position] = np.float32(-np.inf)
            out_rows[query, position] = -1


@functools.cache
def search_kernel(codes: np.dtype[Any]) -> Callable[..., None]:
    """``search`` for codes of 16 bits; of 32 for the rare segment with more than 65,536 distinct pairs."""
    if codes == np.uint16:
        return search
    wide: Callable[..., None] = entry(_search_signature(_array(numba.uint32)))(search.py_func)  # type: ignore[attr-defined]
    return wide
