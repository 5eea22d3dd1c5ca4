"""The compiled loops that build a small-world graph over byte codes.

A key holds a score, a row and whether the row's links were followed, so that comparing keys compares scores and then
rows: whatever is done in parallel has one outcome.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from indexing.compiled import kernel
from indexing.hnsw.graph.operations import BYTE_PAIRS, ask_for, byte_product, make_room

_LOW_HALF = np.int64(0xFFFFFFFF)
_LAST_ROW = np.int64(0x7FFFFFFF)
_AHEAD = 4  # candidates whose codes are asked for before they are compared


# --- scores and keys -------------------------------------------------------------------------------


@kernel
def _excess(codes: Any, row: Any) -> Any:
    """What ``byte_product`` adds to every product with this row as the query."""
    if not BYTE_PAIRS:
        return np.int64(0)
    total = np.int64(0)
    for i in range(codes.shape[1]):
        total += np.int64(codes[row, i])
    return 128 * total


@kernel
def _product(codes: Any, row: Any, query: Any) -> Any:
    """The inner product of two rows, too large by the query's ``_excess``."""
    return np.int64(byte_product(codes, row, codes[query], codes.shape[1]))


@kernel
def _key(score: Any, row: Any) -> Any:
    return (score << np.int64(32)) | ((_LAST_ROW - row) << np.int64(1))


@kernel
def _row(key: Any) -> Any:
    return _LAST_ROW - ((key & _LOW_HALF) >> np.int64(1))


@kernel
def _insert(pool: Any, size: Any, key: Any) -> Any:
    """Put a key where it belongs among ``size`` descending ones, dropping the last one of a full pool; the place."""
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


@kernel
def _offer(pool: Any, size: Any, key: Any) -> Any:
    """Put a key into the pool if it is good enough; how many are in it then."""
    if size < len(pool) or key > pool[size - 1]:
        _insert(pool, size, key)
        return min(size + 1, len(pool))
    return size


# --- the walk --------------------------------------------------------------------------------------


@kernel
def _line(upper_start: Any, level: Any, row: Any) -> Any:
    """Where a node's links on a level are, among those of all nodes on the ground or on upper levels."""
    return row if level == 0 else np.int64(upper_start[row]) + level - 1


@kernel
def _meet(codes: Any, links: Any, seen: Any, met: Any, n: int) -> int:
    """Append the neighbours that were not met before, and ask for their codes; how many rows were met."""
    for link in links:
        if link < 0:
            break
        row = np.int64(link)
        byte, bit = seen[row >> 3], np.uint8(1 << (row & 7))
        if byte & bit == 0:
            seen[row >> 3] = byte | bit
            met[n] = row
            n += 1
            ask_for(codes, row, codes.shape[1])
    return n


@kernel
def _walk(
    codes: Any, query: int, excess: int, lists: Any, upper_start: Any, level: int, pool: Any, size: int,
    seen: Any, met: Any,
) -> int:  # fmt: skip
    """Follow links on one level from the nodes in the pool until those of all candidates were followed.

    Args:
        codes: (N, W) int8.
        query: a row.
        excess: the query's.
        lists: (L, width) int32, the links of ``level``.
        upper_start: (N,) int32.
        level: 0 for the ground.
        pool: int64 keys, best first; as many are kept as it has places; written.
        size: how many there are to start from.
        seen: a bit a row, zeros before and after.
        met: (N,) int32 to work in.

    Returns:
        How many candidates there are.
    """
    n = 0
    for at in range(size):
        row = _row(pool[at])
        seen[row >> 3] |= np.uint8(1 << (row & 7))
        met[n] = row
        n += 1
    list_bytes = 4 * lists.shape[1]
    at = 0
    while at < size:
        if pool[at] & 1:
            at += 1
            continue
        pool[at] |= 1
        line, new = _line(upper_start, level, _row(pool[at])), n
        n = _meet(codes, lists[line], seen, met, n)
        if at + 1 < size:  # most likely the next one
            ask_for(lists, _line(upper_start, level, _row(pool[at + 1])), list_bytes)
        for i in range(new, n):
            row = np.int64(met[i])
            key = _key(_product(codes, row, query) - excess, row)
            if size < len(pool) or key > pool[size - 1]:
                place = _insert(pool, size, key)
                size = min(size + 1, len(pool))
                if place <= at:
                    at = place
                    ask_for(lists, _line(upper_start, level, row), list_bytes)
    for i in range(n):
        seen[met[i] >> 3] = 0
    for i in range(size):
        pool[i] &= ~np.int64(1)
    return size


# --- neighbours ------------------------------------------------------------------------------------


@kernel
def _equal(codes: Any, left: Any, right: Any) -> bool:
    for i in range(codes.shape[1]):
        if codes[left, i] != codes[right, i]:
            return False
    return True


@kernel
def _choose(codes: Any, candidates: Any, size: int, excess: Any, chosen: Any) -> None:
    """Neighbours for a node: candidates that are closer to it than to all neighbours chosen before.

    Of equal vectors one is chosen, since a thousand copies would otherwise know nothing but each other.

    Args:
        codes: (N, W) int8.
        candidates: keys of the node's candidates, best first.
        size: how many there are.
        excess: (width,) int64 to work in.
        chosen: (width,) rows, written; -1 fills up the end.
    """
    n = 0
    for i in range(size):
        if i + _AHEAD < size:
            ask_for(codes, _row(candidates[i + _AHEAD]), codes.shape[1])
        row, score = _row(candidates[i]), candidates[i] >> np.int64(32)
        fits = True
        for j in range(n):
            other = np.int64(chosen[j])
            between = _product(codes, row, other) - excess[j]
            if between > score or (between == score and _equal(codes, row, other)):
                fits = False
                break
        if fits:
            chosen[n] = row
            excess[n] = _excess(codes, row)
            n += 1
            if n == len(chosen):
                break
    chosen[n:] = -1


@kernel
def _offer_all(codes: Any, query: Any, excess: Any, rows: Any, candidates: Any, size: Any) -> Any:
    """Put rows among the candidates of another if they are good enough; how many there are then."""
    for row in rows:
        ask_for(codes, np.int64(row), codes.shape[1])
    for row in rows:
        key = _key(_product(codes, np.int64(row), query) - excess, np.int64(row))
        size = _offer(candidates, size, key)
    return size


@kernel
def find_neighbours(
    codes: Any, rows: Any, first: int, last: int, levels: Any,
    links: Any, upper_start: Any, upper_links: Any, entry: int, top: int,
    pool: Any, candidates: Any, excess: Any, seen: Any, met: Any,
) -> None:  # fmt: skip
    """Choose neighbours for rows of a batch, in the graph without the batch and among earlier rows of it.

    Args:
        codes: (N, W) int8.
        rows: (B,) int64, the batch.
        first: and last: those to work on.
        levels: (N,) int8, the highest level of each row.
        links: (N, 2m) int32, of the batch's rows written.
        upper_start: (N,) int32.
        upper_links: (U, m) int32, of the batch's rows written.
        entry: where walks start, -1 for an empty graph.
        top: the entry's highest level.
        pool: (ef,) int64 to work in.
        candidates: at least as many, to work in.
        excess: (2m,) int64 to work in.
        seen: a bit a row, zeros before and after.
        met: (N,) int32 to work in.
    """
    for place in range(first, last):
        query = rows[place]
        own, size = _excess(codes, query), 0
        if entry >= 0:
            pool[0] = _key(_product(codes, entry, query) - own, entry)
            size = 1
            for level in range(top, levels[query], -1):
                size = _walk(codes, query, own, upper_links, upper_start, level, pool[:1], size, seen, met)
        for level in range(levels[query], -1, -1):
            lists = links if level == 0 else upper_links
            n = 0
            if size and level <= top:
                n = size = _walk(codes, query, own, lists, upper_start, level, pool, size, seen, met)
                candidates[:n] = pool[:n]
            for earlier in range(place):
                row = rows[earlier]
                if levels[row] >= level:
                    key = _key(_product(codes, row, query) - own, row)
                    n = _offer(candidates[: len(pool)], n, key)
            _choose(codes, candidates, n, excess, lists[_line(upper_start, level, query)])


@kernel
def link_back(
    codes: Any, lists: Any, lines: Any, targets: Any, sources: Any, first: int, last: int, candidates: Any,
    excess: Any,
) -> None:  # fmt: skip
    """Let chosen nodes know who chose them; a node with too many links chooses among them.

    Args:
        codes: (N, W) int8.
        lists: (L, width) int32, written.
        lines: (E,) int64 ascending, the line in ``lists`` of who was chosen.
        targets: (E,) int64, who was chosen.
        sources: (E,) int64, who chose.
        first: and last: the edges to work on, all or none of a line.
        candidates: int64 to work in; of a node that even more chose these best are considered.
        excess: (width,) int64 to work in.
    """
    width = lists.shape[1]
    start = first
    while start < last:
        stop = start + 1
        while stop < last and lines[stop] == lines[start]:
            stop += 1
        chosen, target = lists[lines[start]], targets[start]
        n = 0
        while n < width and chosen[n] >= 0:
            n += 1
        if n + stop - start <= width:
            chosen[n : n + stop - start] = sources[start:stop]
        else:
            own = _excess(codes, target)
            size = _offer_all(codes, target, own, chosen[:n], candidates, 0)
            size = _offer_all(codes, target, own, sources[start:stop], candidates, size)
            _choose(codes, candidates, size, excess, chosen)
        start = stop


@kernel
def closest_first(codes: Any, lists: Any, owners: Any, first: int, last: int, candidates: Any) -> None:
    """Put the links in some lines in order.

    Args:
        codes: (N, W) int8.
        lists: (L, width) int32, written.
        owners: (L,) int64, the node whose links a line holds.
        first: and last: the lines to work on.
        candidates: at least (width,) int64 to work in.
    """
    for line in range(first, last):
        neighbours = lists[line]
        n = 0
        while n < len(neighbours) and neighbours[n] >= 0:
            n += 1
        size = _offer_all(codes, owners[line], 0, neighbours[:n], candidates, 0)
        for i in range(size):
            neighbours[i] = _row(candidates[i])


# --- connectivity ----------------------------------------------------------------------------------


@kernel
def _spread(links: Any, start: int, parents: Any, queue: Any) -> None:
    """Note who is reached over the links of ``start``, breadth first."""
    queue[0] = start
    head, tail = 0, 1
    while head < tail:
        node = queue[head]
        head += 1
        for row in links[node]:
            if row >= 0 and parents[row] < 0:
                parents[row] = node
                queue[tail] = row
                tail += 1


@kernel
def _room(links: Any, node: Any, parents: Any) -> Any:
    """A place for one more link: a free one, or the last whose link is not the one its row is reached by; else -1."""
    found = -1
    for i in range(links.shape[1]):
        row = links[node, i]
        if row < 0:
            return i
        if parents[row] != node:
            found = i
    return found


@kernel
def connect(
    codes: Any, links: Any, upper_start: Any, entry: int, parents: Any, queue: Any, pool: Any, seen: Any,
    met: Any,
) -> int:  # fmt: skip
    """Link every row that cannot be reached over ground links from the entry to a near one that can.

    Nothing that was reached is lost: a link is replaced only where its row is reached by another. A node all of
    whose links are needed passes the row on to one of those it leads to, and those to theirs, down to one with room.

    Args:
        codes: (N, W) int8.
        links: (N, 2m) int32, written.
        upper_start: (N,) int32.
        entry: where walks start.
        parents: (N,) int32, -1; written: the node from which each was reached first.
        queue: (N,) int32 to work in.
        pool: (ef,) int64 to work in.
        seen: a bit a row, zeros before and after.
        met: (N,) int32 to work in.

    Returns:
        How many rows were linked.
    """
    parents[entry] = entry
    _spread(links, entry, parents, queue)
    linked = 0
    for row in range(len(links)):
        if parents[row] >= 0:
            continue
        node = np.int64(-1)
        for neighbour in links[row]:
            if neighbour >= 0 and parents[neighbour] >= 0:
                node = np.int64(neighbour)
                break
        if node < 0:
            own = _excess(codes, row)
            pool[0] = _key(_product(codes, entry, row) - own, entry)
            _walk(codes, row, own, links, upper_start, 0, pool, 1, seen, met)
            node = _row(pool[0])
        place = _room(links, node, parents)
        turn = np.uint64(row)
        while place < 0:
            turn = turn * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            node = np.int64(links[node, (turn >> np.uint64(33)) % np.uint64(links.shape[1])])
            place = _room(links, node, parents)
        links[node, place] = row
        parents[row] = node
        _spread(links, row, parents, queue)
        linked += 1
    return linked
