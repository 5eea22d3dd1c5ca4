"""The compiled walk through a small-world graph, over byte codes or over the stored vectors themselves.

A walk is bound by memory: it reads some hundred vectors from all over the index, a few at a time. So whatever a hop is
going to read is asked for before the first of it is needed; byte codes are compared where they lie, four times smaller
than float32, by the instruction that multiplies and adds 64 pairs of bytes where the CPU has it; and the candidates
that are scored for good at the end are asked for ahead too.

The pool of candidates is one line of keys in descending order. A key holds a candidate's score, its row and whether
its links were followed; all comparisons are between keys, so equal scores are in order of the row and a walk has one
outcome. Vectors are read from files: pass them through ``retrieval.kernels.frozen``. Import this module inside
functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from indexing.compiled import kernel
from indexing.hnsw.graph.operations import ask_for, byte_product, make_room, ordered_product
from retrieval.compute import kernel_cache
from retrieval.intrinsics import widened

kernel_cache()

from numba import types  # noqa: E402
from numba.extending import overload  # noqa: E402

_FLOAT32_MAX = np.float64(np.finfo(np.float32).max)
_LARGEST = 127  # see ``indexing.hnsw.graph.codes``
_LOW_HALF = np.int64(0xFFFFFFFF)
_AHEAD = 8
"""Stored vectors that are asked for ahead of the one that is scored: 12 kB of float32 at width 384."""
WITNESSES = 256
"""Rows that are asked whether a walk went astray. On 45,000 of MiniLM's vectors, half of them denied and the nearest
1%, 3% and 6% besides, recall was 0.62, 0.50 and 0.78 with 64 witnesses of whom three were enough, and 0.86, 1 and 1
with 256."""
_SEEDS = 16
"""Allowed rows from which a filtered walk starts besides the node it descends to."""


# --- scores ----------------------------------------------------------------------------------------


@kernel
def _exact(values: Any, row: Any, query: Any, width: int) -> float:
    """The inner product over the first ``width`` components, as ``retrieval.kernels.inner_products`` has it."""
    whole = width - width % 8
    a, b, c, d, e, f, g, h = ordered_product(values, row, query, whole)
    for i in range(whole, width):
        a += np.float64(query[i]) * np.float64(widened(values[row, i]))
    score = ((a + e) + (c + g)) + ((b + f) + (d + h))
    return min(max(score, -_FLOAT32_MAX), _FLOAT32_MAX)


def _rank(vectors: Any, row: Any, query: Any, width: Any) -> Any:
    """An int32 that orders rows of codes, or of stored vectors, like their inner product with the query does."""


@overload(_rank)
def _rank_overload(vectors: Any, row: Any, query: Any, width: Any) -> Any:
    if vectors.dtype == types.int8:

        def of_bytes(vectors: Any, row: Any, query: Any, width: Any) -> Any:
            return byte_product(vectors, row, query, width)

        return of_bytes

    def of_numbers(vectors: Any, row: Any, query: Any, width: Any) -> Any:
        bits = np.float32(_exact(vectors, row, query, width)).view(np.int32)
        return bits if bits >= 0 else np.int32(bits ^ np.int32(0x7FFFFFFF))

    return of_numbers


def _asked(vectors: Any, query: Any, prefix: Any, line: Any) -> Any:
    """The query as it is compared: itself, or where rows are codes its own codes, zeros after the prefix.

    Its scale is its own: the largest component is 127 steps.
    """


@overload(_asked)
def _asked_overload(vectors: Any, query: Any, prefix: Any, line: Any) -> Any:
    def as_bytes(vectors: Any, query: Any, prefix: Any, line: Any) -> Any:
        largest = np.float32(0.0)
        for i in range(prefix):
            largest = max(largest, abs(query[i]))
        steps = np.float64(_LARGEST) / np.float64(largest) if largest > 0 else 0.0
        line[:] = 0
        for i in range(prefix):
            line[i] = np.int8(np.rint(np.float64(query[i]) * steps))
        return line

    def as_it_is(vectors: Any, query: Any, prefix: Any, line: Any) -> Any:
        return query

    return as_bytes if vectors.dtype == types.int8 else as_it_is


# --- the pool --------------------------------------------------------------------------------------


@kernel
def _key(rank: Any, row: Any) -> Any:
    """What the pool is ordered by: the rank, then the smaller row; the lowest bit says that its links were followed."""
    return (np.int64(rank) << np.int64(32)) | ((np.int64(0x7FFFFFFF) - row) << np.int64(1))


@kernel
def _row(key: Any) -> Any:
    return np.int64(0x7FFFFFFF) - ((key & _LOW_HALF) >> np.int64(1))


@kernel
def _insert(pool: Any, size: int, key: Any) -> int:
    """Put a key where it belongs among ``size``, dropping the last one of a full pool; the place."""
    low, high = 0, size
    while low < high:
        middle = (low + high) >> 1
        if pool[middle] > key:
            low = middle + 1
        else:
            high = middle
    make_room(pool, low, min(size, len(pool) - 1))
    pool[low] = key
    return low


# --- the walk --------------------------------------------------------------------------------------


@kernel
def _descend(
    upper_start: Any, upper_links: Any, entry: int, top: int, vectors: Any, query: Any, width: int
) -> Any:
    """The node of the ground level at which greedy steps through the upper levels end."""
    best, rank = np.int64(entry), _rank(vectors, entry, query, width)
    size = width * vectors.itemsize
    for level in range(top, 0, -1):
        node = np.int64(-1)
        while node != best:
            node = best
            links = upper_links[upper_start[node] + level - 1]
            for i in range(len(links)):
                if links[i] >= 0:
                    ask_for(vectors, np.int64(links[i]), size)
            for i in range(len(links)):
                if links[i] < 0:
                    break
                found = _rank(vectors, np.int64(links[i]), query, width)
                if found > rank:
                    best, rank = np.int64(links[i]), found
    return best


@kernel
def _unseen(row: Any, seen: Any) -> bool:
    """Whether a row is met for the first time, which it is not from then on."""
    byte, bit = seen[row >> 3], np.uint8(1 << (row & 7))
    if byte & bit:
        return False
    seen[row >> 3] = byte | bit
    return True


@kernel
def _is_allowed(row: Any, allowed: Any) -> bool:
    return (allowed[row >> 3] >> (row & 7)) & 1 == 1


@kernel
def _meet(links: Any, node: int, seen: Any, met: Any, n: int) -> int:
    """Append the neighbours of a node that were not met before; how many rows were."""
    for i in range(links.shape[1]):
        row = np.int64(links[node, i])
        if row < 0:
            break
        if _unseen(row, seen):
            met[n] = row
            n += 1
    return n


@kernel
def _meet_allowed(links: Any, node: int, allowed: Any, seen: Any, met: Any, n: int) -> int:
    """The same among allowed rows: what is denied is stepped over to its own neighbours, as long as few were found.

    Denied rows are neither scored nor candidates, so that neither the work nor the recall depends on how many
    there are (the two-hop neighbourhoods of ACORN-1: Patel, Kraft, Guestrin, Zaharia, SIGMOD 2024,
    arXiv:2403.04871, which cuts them to m rows; here to 2 m).
    """
    found = 0
    for i in range(links.shape[1]):
        row = np.int64(links[node, i])
        if row < 0:
            break
        if not _is_allowed(row, allowed):
            ask_for(links, row, np.int64(4 * links.shape[1]))
            continue
        found += 1
        if _unseen(row, seen):
            met[n] = row
            n += 1
    for i in range(links.shape[1]):
        between = np.int64(links[node, i])
        if between < 0 or found >= links.shape[1]:
            break
        if _is_allowed(between, allowed) or not _unseen(between, seen):
            continue
        for j in range(links.shape[1]):
            row = np.int64(links[between, j])
            if row < 0:
                break
            if not _is_allowed(row, allowed):
                continue
            found += 1
            if _unseen(row, seen):
                met[n] = row
                n += 1
    return n


@kernel
def _meet_seeds(n_rows: int, allowed: Any, seen: Any, met: Any, n: int) -> int:
    """Append the first allowed row of each of several equal parts, from which any allowed region can be reached."""
    for part in range(_SEEDS):
        row, stop = n_rows * part // _SEEDS, n_rows * (part + 1) // _SEEDS
        while row < stop and not _is_allowed(row, allowed):
            row += 8 - (row & 7) if allowed[row >> 3] >> (row & 7) == 0 else 1
        if row < stop and _unseen(row, seen):
            met[n] = row
            n += 1
    return n


@kernel
def _walk(
    links: Any, start: int, vectors: Any, query: Any, width: int, allowed: Any, seen: Any, met: Any, pool: Any
) -> tuple[int, int]:
    """Follow the links of the best candidate until those of all were followed.

    Args:
        links: (N, 2m) int32.
        start: the node to begin with.
        vectors: (N, W) int8 codes, float32, or float16 as uint16.
        query: (W,) the query as int8 codes or float32.
        width: components that are compared.
        allowed: bits of the rows that may be candidates; empty for all.
        seen: a bit a row, none set; written.
        met: (N,) int32, written: the rows whose bits are set now, except those that were stepped over.
        pool: (ef,) int64, written: the keys of the candidates, best first.

    Returns:
        How many candidates and how many met rows there are.
    """
    every, size = len(allowed) == 0, 0
    n_bytes = width * vectors.itemsize
    if every or _is_allowed(start, allowed):
        _unseen(start, seen)
        met[0] = start
        n = 1
    else:
        n = _meet_allowed(links, start, allowed, seen, met, 0)
    if not every:
        n = _meet_seeds(len(links), allowed, seen, met, n)
    at, done = 0, 0
    while True:
        for i in range(done, n):
            ask_for(vectors, np.int64(met[i]), n_bytes)
        for i in range(done, n):
            key = _key(_rank(vectors, np.int64(met[i]), query, width), np.int64(met[i]))
            if size < len(pool) or key > pool[size - 1]:
                at = min(at, _insert(pool, size, key))
                size = min(size + 1, len(pool))
        done = n
        while at < size and pool[at] & 1:
            at += 1
        if at == size:
            return size, n
        pool[at] |= 1
        node = _row(pool[at])
        if every:
            n = _meet(links, node, seen, met, n)
        else:
            n = _meet_allowed(links, node, allowed, seen, met, n)


@kernel
def _is_astray(
    vectors: Any, query: Any, width: int, allowed: Any, pool: Any, size: int, k: int, against: int
) -> bool:
    """Whether a filter seems to hide the neighbourhood of a query, so that a walk cannot be trusted.

    Allowed rows that lie around a query lead to each other and differ in their scores. Those that are left far from it
    are scattered, so that steps towards the query end at any of them, and many score alike. So it is asked how
    many of a few rows spread over the index are denied and nevertheless nearer than the k-th of what was found.
    """
    if size < k:
        return True
    nearer, n_bytes = 0, np.int64(width * vectors.itemsize)
    for part in range(WITNESSES):
        ask_for(vectors, np.int64(len(vectors) * min(part + _AHEAD, WITNESSES - 1) // WITNESSES), n_bytes)
        row = np.int64(len(vectors) * part // WITNESSES)
        if not _is_allowed(row, allowed) and _key(_rank(vectors, row, query, width), row) > pool[k - 1]:
            nearer += 1
    return nearer >= against


@kernel
def _scan(vectors: Any, query: Any, width: int, allowed: Any, met: Any, pool: Any) -> int:
    """Compare every allowed row; how many candidates there are."""
    n, size = 0, 0
    for byte in range(len(allowed)):
        bits = allowed[byte]
        for bit in range(8 if bits else 0):
            if (bits >> bit) & 1:
                met[n] = 8 * byte + bit
                n += 1
    n_bytes = np.int64(width * vectors.itemsize)
    for i in range(n):
        if i + _AHEAD < n:
            ask_for(vectors, np.int64(met[i + _AHEAD]), n_bytes)
        key = _key(_rank(vectors, np.int64(met[i]), query, width), np.int64(met[i]))
        if size < len(pool) or key > pool[size - 1]:
            _insert(pool, size, key)
            size = min(size + 1, len(pool))
    return size


@kernel
def _best(pool: Any, values: Any, query: Any, rows: Any, scores: Any) -> None:
    """The best of the candidates by their exact scores, ties by row; what is left of the line stays as it is."""
    dim = values.shape[1]
    n_bytes, size = np.int64(dim * values.itemsize), 0
    for i in range(min(_AHEAD, len(pool))):
        ask_for(values, _row(pool[i]), n_bytes)
    for i in range(len(pool)):
        if i + _AHEAD < len(pool):
            ask_for(values, _row(pool[i + _AHEAD]), n_bytes)
        row = _row(pool[i])
        score = np.float32(_exact(values, row, query, dim))
        at = min(size, len(rows) - 1)
        if size == len(rows) and (score < scores[at] or (score == scores[at] and row > rows[at])):
            continue
        while at > 0 and (score > scores[at - 1] or (score == scores[at - 1] and row < rows[at - 1])):
            rows[at], scores[at] = rows[at - 1], scores[at - 1]
            at -= 1
        rows[at], scores[at] = row, score
        size = min(size + 1, len(rows))


@kernel
def search(
    links: Any, upper_start: Any, upper_links: Any, entry: int, top: int,
    vectors: Any, prefix: int, width: int, values: Any, queries: Any,
    allowed: Any, few: bool, against: int, ef: int, rescored: int,
    line: Any, seen: Any, met: Any, pool: Any, rows: Any, scores: Any,
) -> None:  # fmt: skip
    """Answer queries one after another, each by a walk or by comparing all allowed rows.

    They are compared where a filter leaves few of them, or hides those that are near the query.

    Args:
        links: and upper_start, upper_links, entry, top: see ``indexing.hnsw.graph.layout.Graph``; at least one node.
        vectors: (N, W) int8 codes, a multiple of 64 wide, or what ``values`` is.
        prefix: components that the walk compares.
        width: the same; for codes the next multiple of 64.
        values: (N, D) float32, or the uint16 bits of float16: the stored vectors.
        queries: (Q, D) float32.
        allowed: uint8, the bits of the rows that may be returned; empty for all.
        few: whether so few are allowed that comparing each is better than a walk.
        against: witnesses that it takes to distrust a filtered walk, see ``_is_astray``.
        ef: candidates that a walk keeps, at least k.
        rescored: of these, how many are scored by the stored vectors.
        line: (W,) int8 to work in.
        seen: (N / 8,) uint8, zeros before and after.
        met: (N,) int32 to work in.
        pool: (C,) int64 to work in, at least ef: its length is the number of candidates that are kept, and scored by
            the stored vectors, where all allowed rows are compared.
        rows: (Q, k) int64, -1 before; written.
        scores: (Q, k) float32, -inf before; written.
    """
    for query in range(len(queries)):
        compare, size = few, 0
        if not few:
            asked = _asked(vectors, queries[query], prefix, line)
            start = _descend(upper_start, upper_links, entry, top, vectors, asked, width)
            kept = pool[:ef]
            size, n = _walk(links, start, vectors, asked, width, allowed, seen, met, kept)
            if len(allowed):
                seen[:] = 0
                compare = _is_astray(vectors, asked, width, allowed, kept, size, rows.shape[1], against)
            else:
                for i in range(n):
                    seen[met[i] >> 3] = 0
            size = min(size, rescored)
        if compare:
            asked = _asked(vectors, queries[query], values.shape[1], line)
            size = _scan(vectors, asked, vectors.shape[1], allowed, met, pool)
        _best(pool[:size], values, queries[query], rows[query], scores[query])
