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
_LOOK_UP = numba.void(
    *(*_STRINGS, _U64, _I32, _I64, *_STRINGS, _I64),
    *(numba.int32[::1], numba.uint64[::1], numba.int64[::1]),
)


def _search_signature(codes: Any) -> Any:
    return numba.void(
        *(_I64, _I32, _I32, _U8, numba.int64, numba.int64, _I32, _U64, _I64, _I64, _F32),
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
SLACK_DOWN = 0.99999


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
    indptr: NDArray[np.int64],
    out_terms: NDArray[np.int32],
    out_hashes: NDArray[np.uint64],
    out_frequencies: NDArray[np.int64],
) -> None:
    """Number of each asked term in a segment, -1 when it is not there, its hash, and how many postings it has.

    Args:
        blob, offsets, fields: the terms asked for.
        hashes: (V,) of the segment's terms, ascending; term_of: (V,) the term of each.
        buckets: (2^b + 1,) where the hashes with each value of their first b bits start.
        known_blob, known_offsets, known_fields: the segment's vocabulary, for comparison byte by byte.
        indptr: (V+1,) where its postings start.
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
        out_frequencies[term] = 0
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
                out_frequencies[term] = indptr[candidate + 1] - indptr[candidate]
                break


@kernel
def idf(n_documents: int, frequency: int) -> np.float32:
    """Lucene's ln(1 + (N - df + 0.5) / (df + 0.5)), rounded to float32."""
    return np.float32(math.log(1.0 + (n_documents - frequency + 0.5) / (frequency + 0.5)))


@kernel
def first_at_least(rows: NDArray[np.int32], start: int, stop: int, row: int, n: int) -> int:
    """The first position from start on whose row is at least the given one; stop if there is none.

    Guesses by interpolation, as if the rows up to n were spread evenly, then gallops to either side: a
    guess in the right neighbourhood saves the cache misses of a binary search.
    """
    if start >= stop:
        return stop
    here = np.int64(rows[start])
    if here >= row:
        return start
    guess = start + (row - here) * (stop - start) // max(1, n - here)
    guess = min(guess, stop - 1)
    step = 1
    if rows[guess] < row:
        low, high = guess, guess + 1
        while high < stop and rows[high] < row:
            low = high
            step <<= 1
            high = min(low + step, stop)
    else:
        high, low = guess, max(start, guess - 1)
        while rows[low] >= row:
            high = low
            step <<= 1
            low = max(start, high - step)
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
def raise_to(columns: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    """Put the larger of each pair of non-negative values into columns."""
    for column in range(len(values)):
        value = values[column]
        columns[column] = value if value > columns[column] else columns[column]


@kernel
def column_maxima(values: NDArray[np.float32], n: int, width: int, columns: NDArray[np.float32]) -> None:
    """The maximum of each column of n values laid out in rows of the given width."""
    columns[:width] = values[:width]
    for low in range(width, n, width):
        raise_to(columns[: min(width, n - low)], values[low : min(low + width, n)])


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
def take_candidates(
    accumulators: NDArray[np.float32],
    size: int,
    start: int,
    k: int,
    floor: np.float32,
    rest: float,
    expected: float,
    columns: NDArray[np.float32],
    candidates: NDArray[np.uint64],
) -> tuple[int, np.float32]:
    """The rows of a window whose score plus rest reaches the floor, as ``pack_row`` keys; clears the window.

    Args:
        accumulators: the window's, of the given size, beginning with row start.
        k: raise the floor to a score that k of these rows reach; 0 to leave it.
        floor, rest: see ``search``.
        expected: about how many there will be.
        columns: scratch, twice the window; candidates: receives the keys.

    Returns:
        How many there are, and the floor.
    """
    # A column that passes is looked through, so there should be several times as many columns as candidates;
    # the k-th largest maximum is close to the k-th largest score under the same condition.
    width = max(512 if k == 0 else 128, 8 * max(k, np.int64(expected)))
    width = max(min(width, size // 2), min(size, k))
    column_maxima(accumulators, size, width, columns)
    if k > 0 and width >= k:
        # at least k rows reach the k-th largest maximum
        columns[width : 2 * width] = columns[:width]
        keep_best(columns[width : 2 * width], width, k)
        floor = max(floor, columns[width + k - 1])
    needed = max(np.float32(1e-38), np.float32((floor - rest) * SLACK_DOWN))
    n = 0
    for column in range(width):
        if columns[column] >= needed:
            for position in range(column, size, width):
                candidates[n] = pack_row(start + position, accumulators[position])
                n += accumulators[position] >= needed
    accumulators[:size] = np.float32(0)
    return n, floor


@kernel
def complete(
    score: np.float32,
    row: int,
    floor: np.float32,
    first: int,
    n_terms: int,
    n: int,
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
        position = first_at_least(rows, low[term], high[term], row, n)
        low[term] = position
        if position < high[term] and rows[position] == row:
            score += weight[term] * table[codes[position]]
    return score


@entry(_search_signature(_U16))
def search(
    query_indptr: NDArray[np.int64],
    query_indices: NDArray[np.int32],
    query_frequencies: NDArray[np.int32],
    query_fields: NDArray[np.uint8],
    first: int,
    last: int,
    terms: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    frequencies: NDArray[np.int64],
    n_documents: NDArray[np.int64],
    boosts: NDArray[np.float32],
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
        query_indptr, query_indices, query_frequencies, query_fields: the query batch.
        terms, hashes: (V_q,) for each entry of the batch's vocabulary, see ``look_up``.
        frequencies, n_documents: document frequencies (V_q,) and documents (F,) of the collection.
        boosts: (F,) weight of each field.
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
    columns = np.empty(2 * widest, dtype=np.float32)
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
            field = query_fields[entry]
            if terms[entry] >= 0 and frequencies[entry] > 0 and boosts[field] > 0:
                order[n_terms] = n_terms
                unordered[n_terms] = (
                    boosts[field] * np.float32(query_frequencies[position])
                ) * idf(n_documents[field], frequencies[entry])
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
        enough = k  # rows that are worth a selection
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
                    low = first_at_least(rows, low, end[read], start, n)
                high = first_at_least(rows, low, end[read], stop, n)
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
                wanted = k if not filtered and found < k else 0
                n_candidates, floor = take_candidates(
                    accumulators, size, start, wanted, floor, rest, expected * size, columns, candidates
                )
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
                width = widest
            if read < n_terms and n_candidates > 1:
                candidates[:n_candidates].sort()  # look-ups go forward only

            # --- complete their scores and keep the best
            expected = n_candidates / size
            for c in range(n_candidates):
                row = np.int64(candidates[c] >> np.uint64(32))
                if filtered and not (allowed[row >> 3] >> (row & 7)) & 1:
                    continue
                score = score_of(candidates[c] << np.uint64(32))
                if read < n_terms:
                    score = complete(
                        score, row, floor, read, n_terms, n, rows, codes, cursor, end, weight, bound, table
                    )
                if score < floor:
                    continue
                keys[found] = pack(score, row)
                found += 1
                if found == room:
                    keep_best(keys, found, k)
                    found = k
                    floor = max(floor, score_of(keys[k - 1]))
            if found >= enough:
                keep_best(keys, found, k)
                found = k
                enough = k + k // 4 + 1
                # all later rows lose ties, so they must score more: the next larger float32
                floor = score_of(keys[k - 1] + (np.uint64(1) << np.uint64(32)))

        # --- best first
        n_best = min(found, k)
        if found > k:
            keep_best(keys, found, k)
        best = keys[:n_best]
        if n_best > 24:
            best.sort()
        else:
            for i in range(1, n_best):
                key = best[i]
                j = i
                while j > 0 and best[j - 1] > key:
                    best[j] = best[j - 1]
                    j -= 1
                best[j] = key
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
