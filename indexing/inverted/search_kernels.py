"""The compiled search: bounds of all blocks, the promising blocks scored best first, or every posting added up.

After Block-Max Pruning (Mallia, Suel, Tonellotto, SIGIR 2024). What differs: bounds have 4 bits, so that a core adds 64
of them in an instruction and reads half a byte a block and term; a block is given up as soon as its terms' maxima are
seen to lie in different documents; and where too many blocks pass, all postings are added instead.

Scores are sums of impact times query weight in 32-bit integers, hence independent of order; only a hit's score
becomes a float. A *key* is a hit as one integer that sorts by score, then by falling row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import FLOAT, INT, entry, filled, given, kernel
from indexing.inverted.layout import BLOCK, BLOCK_BITS, BUCKETS, LEVELS, WINDOW_BITS
from indexing.inverted.operations import GROUP_BYTES, sum_levels
from retrieval.intrinsics import multiply_add, read_ahead

COLUMNS = 1024  # maxima that stand for all bounds while the best are looked for
LEAST_COLUMNS = 256  # the same for the scores of a window,
COLUMNS_A_HIT = 4  # and how many there are for each hit wanted
N_LEVELS = 512  # of values among which the largest are looked for
GROUP = 64  # documents whose scores are compared with the threshold at once
MOST_TERMS = 1000  # a query of more is not worth bounds of 16 bits
FIRST_SHARE = 4  # the first blocks are to be so many times less work than adding up every posting
BOUND_COST = 32  # blocks whose bound is raised in the time of a posting
BLOCK_COST = 500  # postings that are added in the time of scoring a block
FIRST_BLOCKS = 8  # scored before a threshold is known, at least
MORE_BLOCKS = 8  # times as many are looked at in the next round
AHEAD = 6  # blocks whose data is asked for ahead of their turn
EARLY_TERMS = 12  # whose postings are asked for ahead of the block's turn; most blocks are given up by then
CHECK_EVERY = 4  # terms between two attempts to give a block up
LARGEST_SUM = (2**32 - 1) // 255  # of a query's weights as integers
SAFE = 1.0 - 1e-6  # lowers a threshold by more than floats of 32 bits can be off

# what ``search`` reports of each query
POSTINGS, BOUNDED, PASSED, SCORED, ADDED = range(5)


@kernel
def to_key(score: np.float32, row: int) -> np.uint64:
    """A hit as a key; scores are positive, so their bits sort as they do."""
    return (np.uint64(np.float32(score).view(np.uint32)) << np.uint64(32)) | np.uint64(0xFFFFFFFF - row)


@kernel
def key_score(key: np.uint64) -> np.float32:
    """The score of a key."""
    return np.uint32(key >> np.uint64(32)).view(np.float32)


@kernel
def keep(heap: NDArray[np.uint64], size: int, key: np.uint64) -> int:
    """Add a key to a min-heap of fixed length, or replace its least; returns the size."""
    k = len(heap)
    if size < k:
        at = size
        while at > 0 and heap[(at - 1) >> 1] > key:
            heap[at] = heap[(at - 1) >> 1]
            at = (at - 1) >> 1
        heap[at] = key
        return size + 1
    at = 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return size


@kernel
def cut_to_best(keys: NDArray[np.uint64], size: int, k: int) -> int:
    """Bring the k largest of the first ``size`` keys to the front, the least of them first; returns how many."""
    if size > k:
        keys[:k] = np.partition(keys[:size], size - k)[size - k :]
    return min(size, k)


@kernel
def least_score(key: np.uint64, unit: float) -> int:
    """An integer score below which no hit comes before a key."""
    return np.int64(np.float64(key_score(key)) / unit * SAFE)


@kernel
def write_hits(
    heap: NDArray[np.uint64], size: int, out_rows: NDArray[np.int64], out_scores: NDArray[np.float32]
) -> None:
    """Unpack the keys, best first, and pad."""
    heap[:size].sort()
    for position in range(size):
        key = heap[size - 1 - position]
        out_scores[position] = key_score(key)
        out_rows[position] = np.int64(0xFFFFFFFF) - np.int64(key & np.uint64(0xFFFFFFFF))
    out_scores[size:] = np.float32(-np.inf)
    out_rows[size:] = -1


@kernel
def is_in(bits: NDArray[np.uint8], row: int) -> bool:
    """Whether a packed set holds a row; an empty array stands for all rows."""
    return len(bits) == 0 or (bits[row >> 3] >> (row & 7)) & 1 == 1


@kernel
def order_by_reach(reach: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    """The positions of reach by falling value, equal ones as they are."""
    for item in range(len(reach)):
        at = item
        while at > 0 and reach[order[at - 1]] < reach[item]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = item


# --- bounds


@kernel
def add_lines(
    lines: NDArray[np.uint8],
    starts: NDArray[np.int64],
    weights: NDArray[np.uint16],
    bounds: NDArray[np.uint16],
) -> None:
    """The bounds of all blocks: the sums over terms of weight times level.

    Args:
        starts: (T,) where the line of each term begins; weights: (T,).
        bounds: (2 H,) written, two a byte of a line of H.
    """
    half = len(bounds) // 2
    whole = half - half % GROUP_BYTES
    for at in range(0, whole, GROUP_BYTES):
        sum_levels(lines, starts, weights, np.int64(at), bounds, np.int64(half))
    low, high = bounds[whole:half], bounds[half + whole :]
    low[:], high[:] = np.uint16(0), np.uint16(0)
    for t in range(len(starts)):
        line = lines[starts[t] + whole : starts[t] + half]
        for position in range(len(line)):
            pair = line[position]
            low[position] = multiply_add(low[position], weights[t], np.uint8(pair & np.uint8(15)))
            high[position] = multiply_add(high[position], weights[t], np.uint8(pair >> np.uint8(4)))


@kernel
def raise_bounds_of_postings(
    bounds: NDArray[np.uint16],
    postings: NDArray[np.uint32],
    windows: NDArray[np.int64],
    weight: float,
) -> None:
    """The same for a rare term: of several postings in a block the largest counts.

    Args:
        windows: (W + 1,) of the term.
        weight: bound for an impact of 1.
    """
    for window in range(len(windows) - 1):
        first_block = window << (WINDOW_BITS - BLOCK_BITS)
        last, counted = -1, 0
        for position in range(windows[window], windows[window + 1]):
            posting = np.int64(postings[position])
            block = first_block + (posting >> (8 + BLOCK_BITS))
            added = np.int64(weight * (posting & 255)) + 1
            if block != last:
                last, counted = block, 0
            if added > counted:
                bounds[block] += np.uint16(added - counted)
                counted = added


@kernel
def column_maxima(values: NDArray[Any], columns: NDArray[Any]) -> None:
    """The maximum of each column of values laid out in rows as wide as columns."""
    width = len(columns)
    columns[:] = values[:width]
    for start in range(width, len(values), width):
        row = values[start : min(start + width, len(values))]
        for column in range(len(row)):
            value = row[column]
            columns[column] = value if value > columns[column] else columns[column]


@kernel
def level_reached_by(columns: NDArray[Any], wanted: int) -> int:
    """A value that at least ``wanted`` columns reach, and few more than that; 0 if there is none."""
    largest = np.int64(0)
    for column in range(len(columns)):
        largest = max(largest, np.int64(columns[column]))
    shift = 0
    while largest >> shift >= N_LEVELS:
        shift += 1
    bins = np.zeros(N_LEVELS, dtype=np.int32)
    for column in range(len(columns)):
        bins[np.uint64(columns[column]) >> np.uint64(shift)] += np.int32(1)
    reached = 0
    for level in range(N_LEVELS - 1, 0, -1):
        reached += bins[level]
        if reached >= wanted:
            return level << shift
    return 0


@kernel
def blocks_between(
    bounds: NDArray[np.uint16],
    columns: NDArray[np.uint16],
    least: int,
    below: int,
    found: NDArray[np.int64],
) -> int:
    """The blocks whose bound is at least ``least`` and less than ``below``, as ``bound << 32 | block``; how many."""
    width = len(columns)
    n = 0
    for column in range(width):
        if columns[column] >= least:
            for block in range(column, len(bounds), width):
                bound = np.int64(bounds[block])
                if bound >= least and bound < below:
                    found[n] = (bound << 32) | block
                    n += 1
    return n


# --- scoring blocks


@kernel
def read_bucket_ahead(line: NDArray[Any], forward: NDArray[np.uint32], start: int, bucket: np.uint16) -> None:
    """Ask for a term's bucket in a block, which often lies in two cache lines."""
    read_ahead(forward, start + np.int64(line[np.uint64(bucket)]))
    read_ahead(forward, start + np.int64(line[np.uint64(bucket) + np.uint64(1)]) - 1)


@kernel
def score_block(
    line: NDArray[Any],
    forward: NDArray[np.uint32],
    start: int,
    terms: NDArray[np.int32],
    weights: NDArray[np.uint32],
    buckets: NDArray[np.uint16],
    slots: NDArray[np.uint32],
    slack: int,
    scores: NDArray[np.uint32],
) -> bool:
    """Score the documents of a block; False as soon as none of them can reach the threshold.

    Args:
        line: of the directory.
        terms, weights: of the query, those that reach furthest first.
        slack: bound of the block minus threshold. The bound adds up the maxima of all terms, wherever they are; what
            the best document lacks of the maxima seen so far, it cannot make up.
        scores: (BLOCK,) receives the scores.
    """
    scores[:] = np.uint32(0)
    begin = np.uint64(start)
    maxima = np.int64(0)
    n_terms = len(terms)
    for t in range(n_terms):
        if t % CHECK_EVERY == 0:
            for later in range(t + EARLY_TERMS, min(n_terms, t + EARLY_TERMS + CHECK_EVERY)):
                read_bucket_ahead(line, forward, start, buckets[terms[later]])
        bucket, slot, weight = buckets[terms[t]], slots[terms[t]], weights[t]
        largest = np.uint32(0)
        position = begin + np.uint64(line[np.uint64(bucket)])
        end = begin + np.uint64(line[np.uint64(bucket) + np.uint64(1)])
        while position < end:
            posting = forward[position]
            position += np.uint64(1)
            if posting >> np.uint32(12) == slot:
                product = np.uint32(weight * (posting & np.uint32(255)))
                scores[np.uint64((posting >> np.uint32(8)) & np.uint32(BLOCK - 1))] += product
                largest = max(largest, product)
        maxima += np.int64(largest)
        if t % CHECK_EVERY == CHECK_EVERY - 1:
            best = np.uint32(0)
            for document in range(BLOCK):
                best = max(best, scores[document])
            if maxima - np.int64(best) > slack:
                return False
    return True


@kernel
def score_blocks(  # noqa: C901  the reading ahead belongs into the loop
    found: NDArray[np.int64],
    budget: int,
    terms: NDArray[np.int32],
    weights: NDArray[np.uint32],
    unit: float,
    per_bound: float,
    alpha: float,
    rows: NDArray[np.int32],
    buckets: NDArray[np.uint16],
    slots: NDArray[np.uint32],
    starts: NDArray[np.int64],
    directory: NDArray[Any],
    forward: NDArray[np.uint32],
    allowed: NDArray[np.uint8],
    scores: NDArray[np.uint32],
    heap: NDArray[np.uint64],
    size: int,
    threshold: int,
) -> tuple[int, int, int]:
    """Score blocks in falling order of their bounds until none can contribute.

    Args:
        found: ``bound << 32 | block``, ascending.
        budget: most blocks to score.
        unit: score of an integer score of 1; per_bound: integer score that a bound of 1 stands for.
        threshold: least integer score that matters.

    Returns:
        The heap's size, the threshold, and how many blocks were scored.
    """
    k, width = len(heap), BUCKETS + 1
    scored = 0
    early = min(EARLY_TERMS, len(terms))
    for item in range(len(found) - 1, max(-1, len(found) - 1 - AHEAD), -1):
        for bucket in range(0, width, 32):
            read_ahead(directory, (found[item] & 0xFFFFFFFF) * width + bucket)
    for item in range(len(found) - 1, -1, -1):
        reach = ((found[item] >> 32) + 1) * per_bound
        if reach * alpha < threshold or scored == budget:
            break
        if item >= AHEAD:
            for bucket in range(0, width, 32):
                read_ahead(directory, (found[item - AHEAD] & 0xFFFFFFFF) * width + bucket)
        if item >= AHEAD // 2:
            block = found[item - AHEAD // 2] & 0xFFFFFFFF
            for t in range(early):
                read_bucket_ahead(
                    directory[block * width : (block + 1) * width], forward, starts[block], buckets[terms[t]]
                )
        block = found[item] & 0xFFFFFFFF
        scored += 1
        line = directory[block * width : (block + 1) * width]
        slack = np.int64(reach) + 1 - threshold
        if not score_block(line, forward, starts[block], terms, weights, buckets, slots, slack, scores):
            continue
        first = block << BLOCK_BITS
        for document in range(min(BLOCK, len(rows) - first)):
            score = np.int64(scores[document])
            if score > 0 and score >= threshold:
                row = np.int64(rows[first + document])
                key = to_key(np.float32(score * unit), row)
                if (size < k or key > heap[0]) and is_in(allowed, row):
                    size = keep(heap, size, key)
                    if size == k:
                        threshold = max(threshold, least_score(heap[0], unit))
    return size, threshold, scored


# --- adding up every posting


@kernel
def add_postings(
    postings: NDArray[np.uint32], first: int, last: int, weight: np.uint32, accumulators: NDArray[np.uint32]
) -> None:
    """Add a term's postings of a window; positions are unsigned, as signed ones are tested for being negative."""
    part = postings[first:last]
    for position in range(np.uint64(len(part))):
        posting = part[position]
        accumulators[np.uint64(posting >> np.uint32(8))] += np.uint32(weight * (posting & np.uint32(255)))


@kernel
def add_everything(
    terms: NDArray[np.int32],
    weights: NDArray[np.uint32],
    unit: float,
    rows: NDArray[np.int32],
    windows: NDArray[np.int64],
    postings: NDArray[np.uint32],
    allowed: NDArray[np.uint8],
    accumulators: NDArray[np.uint32],
    heap: NDArray[np.uint64],
    threshold: int,
) -> int:
    """Every document's score, window by window; returns the heap's size.

    Args:
        threshold: least integer score that matters; at least k documents are known to reach it.
    """
    n, k, size = len(rows), len(heap), 0
    n_windows = (n + (1 << WINDOW_BITS) - 1) >> WINDOW_BITS
    keys = np.empty(2 * k + 64, dtype=np.uint64)
    width = max(LEAST_COLUMNS, COLUMNS_A_HIT * k)
    threshold = max(1, threshold)
    for window in range(n_windows):
        first = window << WINDOW_BITS
        count = min(1 << WINDOW_BITS, n - first)
        scores = accumulators[: (count + GROUP - 1) // GROUP * GROUP]
        scores[:] = np.uint32(0)
        for t in range(len(terms)):
            place = np.int64(terms[t]) * (n_windows + 1) + window
            add_postings(postings, windows[place], windows[place + 1], weights[t], scores)
        if threshold <= 1 and len(allowed) == 0 and 2 * width <= count:
            columns = np.empty(width, dtype=np.uint32)
            column_maxima(scores, columns)
            threshold = max(threshold, np.int64(level_reached_by(columns, k) * SAFE))
        for start in range(0, count, GROUP):
            part, least, some = scores[start : start + GROUP], np.uint32(threshold), np.uint32(0)
            for document in range(GROUP):
                some |= np.uint32(part[document] >= least)
            if some == 0:
                continue
            for place in range(start, min(start + GROUP, count)):
                score = np.int64(scores[place])
                row = np.int64(rows[first + place])
                if score < threshold or not is_in(allowed, row):
                    continue
                keys[size] = to_key(np.float32(score * unit), row)
                size += 1
                if size == len(keys):
                    size = cut_to_best(keys, size, k)
                    threshold = max(threshold, least_score(keys[0], unit))
    size = cut_to_best(keys, size, k)
    heap[:size] = keys[:size]
    return size


# --- a query


@kernel
def _search_query(  # noqa: C901  the stages of a search, which share its state
    terms: NDArray[np.int32],
    weights: NDArray[np.uint32],
    heavy: int,
    unit: float,
    alpha: float,
    budget: int,
    rows: NDArray[np.int32],
    indptr: NDArray[np.int64],
    windows: NDArray[np.int64],
    postings: NDArray[np.uint32],
    peaks: NDArray[np.uint8],
    bounded: NDArray[np.int32],
    lines: NDArray[np.uint8],
    buckets: NDArray[np.uint16],
    slots: NDArray[np.uint32],
    starts: NDArray[np.int64],
    directory: NDArray[Any],
    forward: NDArray[np.uint32],
    allowed: NDArray[np.uint8],
    bounds: NDArray[np.uint16],
    found: NDArray[np.int64],
    accumulators: NDArray[np.uint32],
    heap: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> int:
    """Fill the heap for one query whose terms all have postings and are ordered; returns its size."""
    n_terms, k, blocks = len(terms), len(heap), len(starts) - 1
    half = len(bounds) // 2
    width = len(windows) // len(peaks)  # windows and one
    total = np.int64(0)
    bound_work = np.int64(0)
    for t in range(n_terms):
        df = indptr[terms[t] + 1] - indptr[terms[t]]
        total += df
        if t < heavy:
            bound_work += df if bounded[terms[t]] < 0 else blocks // BOUND_COST
    counts[POSTINGS] = total
    first_work = FIRST_SHARE * max(FIRST_BLOCKS, k) * BLOCK_COST
    if heavy == 0 or n_terms > MOST_TERMS or first_work >= total or 2 * bound_work >= total:
        counts[ADDED] = 1
        return add_everything(
            terms, weights, unit, rows, windows, postings, allowed, accumulators, heap, np.int64(0)
        )

    # --- bounds of all blocks, in steps such that their sum fits 16 bits
    reach, everything = 0.0, 0.0
    for t in range(n_terms):
        step = (np.int64(peaks[terms[t]]) + LEVELS - 1) // LEVELS
        everything += np.float64(LEVELS * step) * weights[t]
        if t < heavy:
            reach = everything
    scale = (65535.0 - (LEVELS + 1) * heavy) / reach
    n_lines = 0
    line_starts, line_weights = np.empty(heavy, dtype=np.int64), np.empty(heavy, dtype=np.uint16)
    for t in range(heavy):
        term = terms[t]
        if bounded[term] >= 0:
            step = (np.int64(peaks[term]) + LEVELS - 1) // LEVELS
            line_starts[n_lines] = np.int64(bounded[term]) * half
            line_weights[n_lines] = np.uint16(np.ceil(np.float64(step) * weights[t] * scale))
            n_lines += 1
    add_lines(lines, line_starts[:n_lines], line_weights[:n_lines], bounds)
    for t in range(heavy):
        term = terms[t]
        if bounded[term] < 0:
            mine = windows[np.int64(term) * width : (np.int64(term) + 1) * width]
            raise_bounds_of_postings(bounds, postings, mine, weights[t] * scale)
    counts[BOUNDED] = blocks
    # bounds of some of the terms are taken as that share of the whole score which they can reach
    per_bound = everything / reach / scale

    # --- the most promising blocks first, until those that may still contribute are few or too many
    columns = np.empty(min(max(COLUMNS, min(8 * k, 1 << 14)), blocks), dtype=np.uint16)
    column_maxima(bounds[:blocks], columns)
    scores = np.empty(BLOCK, dtype=np.uint32)
    size, threshold = 0, np.int64(0)
    needed, below = np.int64(1), np.int64(1) << 16
    wanted = max(FIRST_BLOCKS, k // 4)
    while True:
        least = needed
        if wanted < len(columns):
            least = max(least, np.int64(level_reached_by(columns, wanted)))
        n = blocks_between(bounds[:blocks], columns, least, below, found)
        found[:n].sort()
        size, threshold, scored = score_blocks(
            *(
                found[:n],
                budget - counts[SCORED],
                terms,
                weights,
                unit,
                per_bound,
                alpha,
                rows,
                buckets,
                slots,
            ),
            *(starts, directory, forward, allowed, scores, heap, size, threshold),
        )
        counts[PASSED] += n
        counts[SCORED] += scored
        needed, below = max(1, np.int64(threshold / alpha / per_bound) - 1), least
        if needed >= below or counts[SCORED] >= budget:
            return size
        wanted *= MORE_BLOCKS
        if 2 * wanted * BLOCK_COST > total:  # a last round, unless it would be too long
            n = blocks_between(bounds[:blocks], columns, needed, below, found)
            if min(n, budget - counts[SCORED]) * BLOCK_COST > total:
                counts[ADDED] = 1
                return add_everything(
                    terms, weights, unit, rows, windows, postings, allowed, accumulators, heap, threshold
                )
            wanted = len(columns)


@kernel
def _quantised(values: NDArray[np.float32], weights: NDArray[np.int64]) -> float:
    """Query weights as integers whose products with impacts add up to less than 2 ** 32; returns one's worth.

    A negative number stands for weights that are none.
    """
    total = 0.0
    for t in range(len(values)):
        if not (values[t] >= 0 and values[t] < np.inf):
            return -1.0
        total += values[t]
    if total == 0:
        weights[:] = 0
        return 1.0
    unit = total / (LARGEST_SUM - len(values))
    for t in range(len(values)):
        weights[t] = np.int64(values[t] / unit + 0.5)
    return unit


def _search_arguments(offsets: Any) -> tuple[Any, ...]:
    return (
        *(given(np.int64), given(np.int32), given(np.float32), FLOAT, INT, INT, FLOAT, FLOAT, INT, INT),
        *(given(np.int32), given(np.int64), given(np.int64), given(np.uint32), given(np.uint8)),
        *(given(np.int32), given(np.uint8), given(np.uint16), given(np.uint32), given(np.int64)),
        *(given(offsets), given(np.uint32), given(np.uint8)),
        *(filled(np.uint16), filled(np.int64), filled(np.uint32), filled(np.uint64)),
        *(filled(np.int64, 2), filled(np.float32, 2), filled(np.int64, 2)),
    )


@entry(*_search_arguments(np.uint16), returns=INT)
def search(
    query_indptr: NDArray[np.int64],
    query_terms: NDArray[np.int32],
    query_values: NDArray[np.float32],
    scale: float,
    first: int,
    last: int,
    alpha: float,
    beta: float,
    cut: int,
    budget: int,
    rows: NDArray[np.int32],
    indptr: NDArray[np.int64],
    windows: NDArray[np.int64],
    postings: NDArray[np.uint32],
    peaks: NDArray[np.uint8],
    bounded: NDArray[np.int32],
    lines: NDArray[np.uint8],
    buckets: NDArray[np.uint16],
    slots: NDArray[np.uint32],
    starts: NDArray[np.int64],
    directory: NDArray[Any],
    forward: NDArray[np.uint32],
    allowed: NDArray[np.uint8],
    bounds: NDArray[np.uint16],
    found: NDArray[np.int64],
    accumulators: NDArray[np.uint32],
    heap: NDArray[np.uint64],
    out_rows: NDArray[np.int64],
    out_scores: NDArray[np.float32],
    counts: NDArray[np.int64],
) -> int:
    """The best rows of queries first .. last-1.

    Args:
        query_indptr, query_terms, query_values: the batch.
        scale: weight that an impact of 1 stands for.
        alpha: a block is skipped when alpha times its bound is below the threshold; 1 is exact.
        beta: share of a query's terms, the heaviest, that are kept; 1 is exact.
        cut: how many of those make bounds, by what they can reach; all is exact, and so is 0, without bounds.
        budget: most blocks to score.
        rows to forward: see ``InvertedFiles``; its bounds are lines here.
        allowed: packed bits of the rows that may be returned; empty for all.
        bounds, found, accumulators, heap: scratch of 2 H, B, 2 ** WINDOW_BITS and k entries.
        out_rows, out_scores: (Q, k), all filled in.
        counts: (Q, 5): postings of the query's terms, blocks bounded, passed and scored, 1 where all was added.

    Returns:
        The first query with a weight that is negative or no number, or a term outside the vocabulary; -1 if there
        is none.
    """
    for query in range(first, last):
        begin, end = query_indptr[query], query_indptr[query + 1]
        for position in range(begin, end):
            if query_terms[position] < 0 or query_terms[position] >= len(peaks):
                return query
        weights = np.empty(end - begin, dtype=np.int64)
        unit = _quantised(query_values[begin:end], weights)
        if unit < 0:
            return query
        heaviest = np.empty(end - begin, dtype=np.int64)
        order_by_reach(weights, heaviest)
        heaviest = heaviest[: np.int64(np.ceil(beta * (end - begin)))]
        reach = np.empty(len(heaviest), dtype=np.int64)
        for t in range(len(heaviest)):
            reach[t] = weights[heaviest[t]] * np.int64(peaks[query_terms[begin + heaviest[t]]])
        order = np.empty(len(heaviest), dtype=np.int64)
        order_by_reach(reach, order)
        kept_terms = np.empty(len(heaviest), dtype=np.int32)
        kept_weights = np.empty(len(heaviest), dtype=np.uint32)
        n_terms = 0
        for t in range(len(order)):
            if reach[order[t]] > 0:
                kept_terms[n_terms] = query_terms[begin + heaviest[order[t]]]
                kept_weights[n_terms] = np.uint32(weights[heaviest[order[t]]])
                n_terms += 1
        size = 0
        counts[query] = 0
        if n_terms > 0:
            size = _search_query(
                *(
                    kept_terms[:n_terms],
                    kept_weights[:n_terms],
                    min(cut, n_terms),
                    unit * scale,
                    alpha,
                    budget,
                ),
                *(rows, indptr, windows, postings, peaks, bounded, lines, buckets, slots, starts),
                *(directory, forward, allowed, bounds, found, accumulators, heap, counts[query]),
            )
        write_hits(heap, size, out_rows[query], out_scores[query])
    return -1


@functools.cache
def search_kernel(offsets: np.dtype[Any]) -> Callable[..., int]:
    """``search`` for a directory of 16 bits; of 32 for the rare segment with a block of more than 65,535 postings."""
    if offsets == np.uint16:
        return search
    wide: Callable[..., int] = entry(*_search_arguments(np.uint32), returns=INT)(search.py_func)  # type: ignore[attr-defined]
    return wide


@entry(
    *(given(np.int64), given(np.int32), given(np.float32), FLOAT),
    *(given(np.int32), given(np.float32), filled(np.uint32), given(np.int64)),
    *(filled(np.uint64), filled(np.int64), filled(np.float32)),
    returns=INT,
)
def search_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    scale: float,
    terms: NDArray[np.int32],
    term_values: NDArray[np.float32],
    table: NDArray[np.uint32],
    rows: NDArray[np.int64],
    heap: NDArray[np.uint64],
    out_rows: NDArray[np.int64],
    out_scores: NDArray[np.float32],
) -> int:
    """The best of a few rows for one query, with the same scores, from their vectors.

    Args:
        indptr, indices, values: the vectors.
        scale: weight that an impact of 1 stands for.
        terms, term_values: the query.
        table: (V,) zeros, and zeros again afterwards.
        rows: which may be returned.

    Returns:
        -1; 0 if a weight of the query is negative or no number, or a term outside the vocabulary.
    """
    for term in terms:
        if term < 0 or term >= len(table):
            return 0
    weights = np.empty(len(terms), dtype=np.int64)
    unit = _quantised(term_values, weights)
    if unit < 0:
        return 0
    for t in range(len(terms)):
        table[terms[t]] = np.uint32(weights[t])
    size = 0
    for row in rows:
        score = np.int64(0)
        for position in range(indptr[row], indptr[row + 1]):
            weight = table[indices[position]]
            if weight > 0 and values[position] > 0:
                impact: int = min(255, max(1, np.int64(values[position] / scale + 0.5)))
                score += weight * np.int64(impact)
        if score > 0:
            key = to_key(np.float32(score * (unit * scale)), row)
            if size < len(heap) or key > heap[0]:
                size = keep(heap, size, key)
    for t in range(len(terms)):
        table[terms[t]] = np.uint32(0)
    write_hits(heap, size, out_rows, out_scores)
    return -1
