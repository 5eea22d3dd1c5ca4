"""Builds a hierarchical small-world graph over byte codes, on all cores, with one outcome.

Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World
graphs", TPAMI 2020, arXiv:1603.09320. Rows are inserted in batches, as in ParlayANN (Dobson et al., PPoPP 2024,
arXiv:2305.04359): all rows of a batch look for neighbours in the graph as it was before the batch, side by side; then
the nodes they chose are told, each by one thread. So there are no locks, and the graph depends on codes, parameters and
order alone, not on the threads. What that search cannot meet, the earlier rows of the same batch, a row is compared
with one by one; hence even the first batch is a full one, and neighbours that stand together in the order find each
other.

Deviations from the paper: levels are drawn by row, not by insertion, so that an order changes nothing but the order; on
the ground level a row chooses up to 2m neighbours, not m; a node keeps one of several equal neighbours; and what cannot
be reached in the end is linked to what is near and can.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexing.hnsw.graph.layout import Graph
from indexing.scratch import Scratch
from retrieval.compute import parallel, threads

_LOG = logging.getLogger(__name__)

_BATCH = (
    1024  # rows: to compare each with half of them takes a tenth of the time, and hands out 0.1 s of work
)
_GRAIN = 16  # rows worth a thread: 1 ms
_LINES = 256  # lines of links worth a thread, when they are changed or put in order
_SEED = 100
_HIGHEST = 30  # levels, which 2 ** 30 rows do not reach with m = 2


def memory_needed(n: int, dim: int, m: int) -> int:
    """Bytes of the codes, the graph and what is noted while it is built."""
    upper = n // (m - 1)
    graph = 4 * n * (2 * m + 1) + 4 * upper * m
    return n * dim + graph + n + threads() * (4 * n + n // 8) + 8 * n


def build_graph(
    codes: NDArray[np.int8],
    m: int,
    ef_construction: int,
    order: NDArray[np.int64] | None,
    progress: Callable[[int], None],
) -> Graph:
    """The graph of N rows.

    Args:
        codes: (N, W) int8 from ``indexing.hnsw.graph.codes``, W a multiple of 64.
        m: links of a node on an upper level, at least 2; on the ground level it has up to twice as many.
        ef_construction: candidates kept while neighbours are looked for; at least m are.
        order: the permutation in which rows are inserted; None for that of the rows.
        progress: called with numbers of rows, N in all.

    Returns:
        A graph in which every row can be reached from the entry over links of the ground level.
    """
    from retrieval.kernels import frozen

    growing = _Growing.empty(frozen(codes), m, max(m, ef_construction))
    rows = np.arange(len(codes)) if order is None else np.ascontiguousarray(order, dtype=np.int64)
    entry, top = -1, 0
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        growing.find_neighbours(batch, entry, top)
        growing.link_back(batch)
        highest = batch[np.argmax(growing.levels[batch])]
        if entry < 0 or growing.levels[highest] > top:
            entry, top = int(highest), int(growing.levels[highest])
        progress(len(batch))
    if entry >= 0:
        growing.connect(entry)
    growing.put_in_order()
    return Graph(growing.links, growing.upper_start, growing.upper_links, entry, top)


class _Growing(NamedTuple):
    """A graph in the making.

    Attributes:
        codes: (N, W) int8, read-only.
        levels: (N,) int8, the highest level of each row.
        links: and upper_start, upper_links: see ``Graph``.
        ef: candidates kept while neighbours are looked for.
        scratch: arrays of each thread.
    """

    codes: NDArray[np.int8]
    levels: NDArray[np.int8]
    links: NDArray[np.int32]
    upper_start: NDArray[np.int32]
    upper_links: NDArray[np.int32]
    ef: int
    scratch: Scratch

    @classmethod
    def empty(cls, codes: NDArray[np.int8], m: int, ef: int) -> _Growing:
        n = len(codes)
        levels = _draw_levels(n, m)
        heights = levels.astype(np.int64)
        upper_start = np.where(heights > 0, np.cumsum(heights) - heights, -1).astype(np.int32)
        return cls(
            codes,
            levels,
            np.full((n, 2 * m), -1, dtype=np.int32),
            upper_start,
            np.full((int(heights.sum()), m), -1, dtype=np.int32),
            min(ef, max(n, m)),
            Scratch(),
        )

    def find_neighbours(self, batch: NDArray[np.int64], entry: int, top: int) -> None:
        """Choose the neighbours of every row of a batch, on all its levels."""
        from indexing.hnsw.graph.building_kernels import find_neighbours

        graph = (self.links, self.upper_start, self.upper_links, entry, top)

        def share(part: slice) -> None:
            find_neighbours(
                self.codes, batch, part.start, part.stop, self.levels, *graph,
                self._pool(), self._candidates(), self._excess(), *self._visits(),
            )  # fmt: skip

        parallel(share, len(batch), grain=_GRAIN)

    def link_back(self, batch: NDArray[np.int64]) -> None:
        """Add the links to the rows of a batch from those they have chosen."""
        self._link_back(self.links, batch, batch, None)
        lines, owners, heights = self._upper_lines(batch)
        self._link_back(self.upper_links, lines, owners, heights)

    def connect(self, entry: int) -> None:
        """Make every row reachable."""
        from indexing.hnsw.graph.building_kernels import connect

        parents, queue = (
            np.full(len(self.links), -1, dtype=np.int32),
            np.empty(len(self.links), dtype=np.int32),
        )
        linked = connect(
            self.codes, self.links, self.upper_start, entry, parents, queue, self._pool(), *self._visits()
        )
        _LOG.debug("linked %d rows that could not be reached", linked)

    def put_in_order(self) -> None:
        """Sort every node's links, closest first."""
        from indexing.hnsw.graph.building_kernels import closest_first

        every = np.arange(len(self.links))
        lines, owners, _ = self._upper_lines(every)
        for lists, nodes in ((self.links, every), (self.upper_links, owners[np.argsort(lines)])):

            def share(part: slice, lists: Any = lists, nodes: Any = nodes) -> None:
                closest_first(self.codes, lists, nodes, part.start, part.stop, self._candidates())

            parallel(share, len(lists), grain=_LINES)

    def _link_back(
        self,
        lists: NDArray[np.int32],
        lines: NDArray[np.int64],
        owners: NDArray[np.int64],
        heights: NDArray[np.int64] | None,
    ) -> None:
        """The same for some lines of links: of the ground level, or with the height above it of each."""
        from indexing.hnsw.graph.building_kernels import link_back

        chosen = lists[lines]
        counts = (chosen >= 0).sum(axis=1)
        targets = chosen[chosen >= 0].astype(np.int64)
        if not len(targets):
            return
        told = targets if heights is None else self.upper_start[targets] + np.repeat(heights, counts)
        keys = np.sort(told << 32 | np.arange(len(told)))  # in the order of the batch for each line
        order, told = keys & 0xFFFFFFFF, keys >> 32
        targets, sources = targets[order], np.repeat(owners, counts)[order]
        bounds = np.flatnonzero(np.diff(told, prepend=-1, append=told[-1] + 1))

        def share(part: slice) -> None:
            link_back(
                self.codes, lists, told, targets, sources, bounds[part.start], bounds[part.stop],
                self._candidates(), self._excess(),
            )  # fmt: skip

        parallel(share, len(bounds) - 1, grain=_LINES)

    def _upper_lines(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Each line of upper links of some rows, the row it belongs to, and how far its level is above level 1."""
        heights = self.levels[rows].astype(np.int64)
        owners = np.repeat(rows, heights)
        above = np.arange(len(owners)) - np.repeat(np.cumsum(heights) - heights, heights)
        return self.upper_start[owners] + above, owners, above

    def _pool(self) -> NDArray[np.int64]:
        return self.scratch.take("pool", self.ef, np.int64)

    def _candidates(self) -> NDArray[np.int64]:
        return self.scratch.take("candidates", max(self.ef, 2 * self.links.shape[1]), np.int64)

    def _excess(self) -> NDArray[np.int64]:
        return self.scratch.take("excess", self.links.shape[1], np.int64)

    def _visits(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """A bit a row, all zero, and a place for each."""
        n = len(self.links)
        return self.scratch.take("seen", (n + 7) // 8, np.uint8), self.scratch.take("met", n, np.int32)


def _draw_levels(n: int, m: int) -> NDArray[np.int8]:
    """The highest level of each row: at least l for one of m ** l rows."""
    uniform = 1.0 - np.random.default_rng(_SEED).random(n)  # above 0
    return np.minimum(-np.log(uniform) / np.log(m), _HIGHEST).astype(np.int8)
