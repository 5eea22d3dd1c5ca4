"""The compiled loop of BM25 search: a traversal in windows of rows with MaxScore pruning, and its parts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import FLOAT, INT, entry, filled, given, kernel, no_nan_kernel

WINDOW = 16_384  # rows of a window that most of the postings are read for; its accumulators stay in cache
DENSE = 16  # with a posting per so many rows of a window, all accumulators are looked at
LOOK_UP_COST = 16  # postings that are read in the time one is looked up
SLACK = 1.00001  # bounds are rounded up by more than any sum of float32 can be off
SLACK_DOWN = 0.99999


def _search_arguments(codes: Any) -> tuple[Any, ...]:
    ints, longs, floats = given(np.int32), given(np.int64), given(np.float32)
    return (
        *(longs, ints, ints, given(np.uint8), INT, INT, ints, given(np.uint64), longs, longs, floats),
        *(longs, ints, given(codes), floats, floats, FLOAT, INT, given(np.uint8)),
        *(filled(np.float32), filled(np.float32), filled(np.uint64)),
        *(filled(np.int64, 2), filled(np.float32, 2)),
    )


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
    guess = start + (row - here) * (stop - start) // np.int64(max(1, n - here))
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
    """The positions 0 .. n-1 by falling weight, then rising hash (Shell's sort)."""
    for i in range(n):
        order[i] = i
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


@no_nan_kernel
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
def count_from(values: NDArray[np.float32], floor: np.float32) -> int:
    """How many values are at least the floor."""
    n = 0
    for position in range(len(values)):
        n += values[position] >= floor
    return n


@kernel
def cheapest_level(
    essential: int,
    n_terms: int,
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    look_ups: NDArray[np.int64],
) -> int:
    """How many of the terms to read in later windows, judged by one window in which all were read.

    Args:
        essential: the terms that must be read.
        begin, end: the postings of each term in the window.
        look_ups: how many rows would have been looked up in each term beyond the essential ones, which does
            not depend on where reading stops.
    """
    best, cost = n_terms, 0
    least = 0
    for t in range(n_terms - 1, essential - 1, -1):
        cost += LOOK_UP_COST * look_ups[t] - (end[t] - begin[t])
        if cost < least:
            best, least = t, cost
    return best


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
    width = max(512 if k == 0 else 128, 8 * int(max(k, expected)))
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


@kernel
def write_best(
    keys: NDArray[np.uint64], n: int, out_rows: NDArray[np.int64], out_scores: NDArray[np.float32]
) -> None:
    """Sort the k largest of n keys and unpack them, padding."""
    k = len(out_rows)
    if n > k:
        keep_best(keys, n, k)
        n = k
    if n > 24:
        keys[:n].sort()
    else:
        for i in range(1, n):
            key = keys[i]
            j = i
            while j > 0 and keys[j - 1] > key:
                keys[j] = keys[j - 1]
                j -= 1
            keys[j] = key
    for position in range(n):
        key = keys[n - 1 - position]
        out_scores[position] = score_of(key)
        out_rows[position] = np.int64(0xFFFFFFFF) - np.int64(key & np.uint64(0xFFFFFFFF))
    for position in range(n, k):
        out_scores[position] = np.float32(-np.inf)
        out_rows[position] = -1


@kernel
def is_in(bits: NDArray[np.uint8], row: int) -> bool:
    """Whether a packed set holds a row."""
    return (bits[row >> 3] >> (row & 7)) & 1 == 1


@kernel
def take_candidates_of_postings(
    rows: NDArray[np.int32],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    n_terms: int,
    start: int,
    floor: np.float32,
    rest: float,
    accumulators: NDArray[np.float32],
    candidates: NDArray[np.uint64],
) -> int:
    """``take_candidates`` for a window with few postings, by going through them again; does not raise the floor."""
    n = 0
    for t in range(n_terms):
        for position in range(begin[t], end[t]):
            row = np.int64(rows[position])
            score = accumulators[np.uint64(row - start)]
            accumulators[np.uint64(row - start)] = np.float32(0)
            if score > 0 and score + rest >= floor:
                candidates[n] = pack_row(row, score)
                n += 1
    return n


@entry(*_search_arguments(np.uint16))
def search(  # noqa: C901  one loop over windows; its state is too much to hand around
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
    columns: NDArray[np.float32],
    candidates: NDArray[np.uint64],
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
        accumulators: zeros, one for each row of the widest window; zeros again afterwards.
        columns, candidates: scratch of twice that size, and of that size and one.
        out_rows, out_scores: (Q, k), all filled in.
    """
    k = out_rows.shape[1]
    filtered = len(allowed) > 0
    room = 2 * k + 64
    widest = len(accumulators)
    keys = np.empty(room, dtype=np.uint64)
    most = 1
    for query in range(first, last):
        most = max(most, query_indptr[query + 1] - query_indptr[query])
    integers = np.empty((5, most), dtype=np.int64)
    order, begin, cursor, end, look_ups = integers[0], integers[1], integers[2], integers[3], integers[4]
    floats = np.empty((2, most), dtype=np.float32)
    unordered, weight = floats[0], floats[1]
    tie_breaks = np.empty(most, dtype=np.uint64)
    bound = np.empty(most + 1, dtype=np.float64)

    for query in range(first, last):
        n_terms = 0
        for position in range(query_indptr[query], query_indptr[query + 1]):
            entry = query_indices[position]
            field = query_fields[entry]
            if terms[entry] >= 0 and frequencies[entry] > 0 and boosts[field] > 0:
                boost = boosts[field] * np.float32(query_frequencies[position])
                unordered[n_terms] = boost * idf(n_documents[field], frequencies[entry])
                tie_breaks[n_terms] = hashes[entry]
                begin[n_terms] = terms[entry]
                n_terms += 1
        order_terms(unordered, tie_breaks, order, n_terms)
        bound[n_terms] = 0.0
        for t in range(n_terms - 1, -1, -1):
            term = begin[order[t]]
            weight[t] = unordered[order[t]]
            cursor[t] = indptr[term]
            end[t] = indptr[term + 1]
            bound[t] = bound[t + 1] + weight[t] * peaks[term] * ratio * SLACK

        found = 0
        enough = k  # rows that are worth a selection
        floor = np.float32(1e-38)  # what a row must score at least; 0 is no hit
        essential = n_terms
        width = min(WINDOW, widest)
        expected = 0.0  # candidates a row, from the window before
        level = n_terms  # the terms that are read; the others are looked up
        windows, next_trial = 0, 1
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
            size = stop - start

            # --- add up the terms that matter, and those that are cheaper to read than to look up
            trial = found >= k and essential < n_terms and windows >= next_trial
            total = 0
            read = n_terms if trial else max(level, essential)
            for t in range(read):
                low = cursor[t]
                if t >= essential:
                    low = first_at_least(rows, low, end[t], start, n)
                    if trial:
                        look_ups[t] = count_from(
                            accumulators[:size], np.float32((floor - bound[t]) * SLACK_DOWN)
                        )
                begin[t] = low
                cursor[t] = first_at_least(rows, low, end[t], stop, n)
                add_postings(rows, codes, low, cursor[t], start, weight[t], table, accumulators)
                total += cursor[t] - low
            if trial:
                level = cheapest_level(essential, n_terms, begin, cursor, look_ups)
                next_trial = 4 * windows
            windows += 1
            rest = bound[read]

            # --- the rows that may be among the best, each once, accumulators cleared
            if total * DENSE > size:
                if filtered and found < k:
                    for i in range(size):
                        if not is_in(allowed, start + i):
                            accumulators[i] = np.float32(0)
                wanted = k if found < k else 0
                n_candidates, floor = take_candidates(
                    accumulators, size, start, wanted, floor, rest, expected * size, columns, candidates
                )
                width = min(WINDOW, widest)
            else:
                n_candidates = take_candidates_of_postings(
                    rows, begin, cursor, read, start, floor, rest, accumulators, candidates
                )
                width = widest
            if read < n_terms and n_candidates > 1:
                candidates[:n_candidates].sort()  # look-ups go forward only

            # --- complete their scores and keep the best
            expected = n_candidates / size
            for c in range(n_candidates):
                row = np.int64(candidates[c] >> np.uint64(32))
                if filtered and not is_in(allowed, row):
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

        write_best(keys, found, out_rows[query], out_scores[query])


@functools.cache
def search_kernel(codes: np.dtype[Any]) -> Callable[..., None]:
    """``search`` for codes of 16 bits; of 32 for the rare segment with more than 65,536 distinct pairs."""
    if codes == np.uint16:
        return search
    wide: Callable[..., None] = entry(*_search_arguments(np.uint32))(search.py_func)  # type: ignore[attr-defined]
    return wide
