"""The compiled loops of product quantisation. Import this module inside functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from indexing.compiled import kernel
from indexing.fde.table_lookup import BLOCK, add_entries_by_register, by_register

_AT_ONCE = 256  # entries of 255 at most that 16 bits can add up


@kernel
def products_with_centroids(query: Any, centroids: Any, out: Any, ranges: Any) -> None:
    """Inner products of a query with the centroids of each group of its dimensions.

    Args:
        query: (M * W,) float32.
        centroids: (M, W, C) float32.
        out: (M, >= C) float32, written.
        ranges: (M, 2) float32, written: the smallest and the largest product of each group; zeros where the query is
            zero, whose products are not written.
    """
    width, count = centroids.shape[1], centroids.shape[2]
    for group in range(len(centroids)):
        ranges[group] = 0.0
        part = query[group * width : group * width + width]
        if count == 0 or not part.any():
            continue
        line = out[group, :count]
        line[:] = 0.0
        for d in range(width):
            for c in range(count):
                line[c] += part[d] * centroids[group, d, c]
        ranges[group, 0], ranges[group, 1] = line.min(), line.max()


@kernel
def round_products(products: Any, ranges: Any, groups: Any, step: float, count: int, entries: Any) -> None:
    """The products of some groups as multiples of a step above the smallest of each.

    Args:
        products: (M, 256) float32.
        ranges: (M, 2) float32, as ``products_with_centroids`` writes them.
        groups: (A,) int64.
        step: at least a 255th of each range.
        count: of products a group.
        entries: (A * 256,) uint8, written.
    """
    inverse = np.float32(1.0 / step) if step > 0.0 else np.float32(0.0)
    for number in range(len(groups)):
        line, low = products[groups[number]], ranges[groups[number], 0]
        for c in range(count):
            steps = (line[c] - low) * inverse + np.float32(0.5)
            entries[number * 256 + c] = np.uint8(np.int32(min(steps, np.float32(255.0))))


@kernel
def add_entries_one_by_one(
    codes: Any, begin: int, groups: Any, entries: Any, start: int, stop: int, sums: Any
) -> None:
    """Add to the sums of a block's documents what their codes name in some tables.

    Args:
        codes: (N,) uint8; of every block each group's 256 codes.
        begin: where the block begins.
        groups: (A,) int64, which group of a block a table is for.
        entries: (A * 256,) uint8, the tables.
        start: the first table.
        stop: behind the last table, at most 256 further.
        sums: (256,) uint32, changed.
    """
    for number in range(start, stop):
        table = entries[number * 256 : number * 256 + 256]
        line = begin + groups[number] * BLOCK
        for row in range(BLOCK):
            sums[row] += np.uint32(table[codes[line + row]])


_add_entries = add_entries_by_register if by_register() else add_entries_one_by_one


@kernel
def scan(
    codes: Any, width: int, blocks: Any, groups: Any, entries: Any, base: float, step: float, out: Any
) -> None:
    """The products of a query with all documents of some blocks.

    Args:
        codes: (B * width * 256,) uint8: of every block each group's 256 codes.
        width: groups of a document.
        blocks: (K,) int64.
        groups: (A,) int64, those that ``entries`` are of.
        entries: (A * 256,) uint8.
        base: what is added to each product.
        step: what an entry of 1 stands for.
        out: (K, 256) float32, written.
    """
    sums = np.empty(BLOCK, dtype=np.uint32)
    for i in range(len(blocks)):
        sums[:] = 0
        for start in range(0, len(groups), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(groups))
            _add_entries(codes, blocks[i] * width * BLOCK, groups, entries, start, stop, sums)
        for row in range(BLOCK):
            out[i, row] = base + step * sums[row]
