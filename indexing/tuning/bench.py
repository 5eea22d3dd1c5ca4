"""The sample that settings are measured on: vectors of some rows, queries, and their exact answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.collection import CollectionSnapshot
from indexing.commit import Commit
from indexing.dense.scan import largest_norm, scan
from indexing.progress import Progress
from indexing.tuning.frontier import Target
from indexing.tuning.grid import GRID
from indexing.tuning.options import TuneOptions
from indexing.tuning.queries import MOST, TuningQueries, given_queries, pseudo_queries
from indexing.tuning.sampling import dense_rows, draw, live_rows, mapped
from retrieval.errors import ConfigError
from retrieval.values import Dense

_SEED = 0


@dataclass(frozen=True, eq=False)
class Bench:
    """What candidates are measured on.

    Attributes:
        vectors: (n, D) of the sample, mapped.
        queries: to choose and to verify with.
        truth: (Q, k) the exact answers of those to choose with.
        live: rows of the collection that are not deleted.
        segments: rows of each of its segments, which times and bytes are estimated for.
        target: what is asked.
        memory_bytes: what a build may hold.
        folder: for indexes, gone when the bench is.
    """

    vectors: Dense
    queries: TuningQueries
    truth: NDArray[np.int64]
    live: int
    segments: tuple[int, ...]
    target: Target
    memory_bytes: int
    folder: Path

    @property
    def choosing(self) -> Dense:
        """(Q, D) queries to choose with."""
        return self.queries.halves()[0]

    @property
    def times(self) -> float:
        """How many times the sample the collection is."""
        return sum(self.segments) / len(self.vectors)

    def slowdown(self, kind: str) -> float:
        """How many times as long a search of the whole collection takes, all segments one after another."""
        n = len(self.vectors)
        return sum(GRID[kind].growth(rows / n, n) for rows in self.segments)


@contextmanager
def open_bench(
    path: Path, commit: Commit, name: str, options: TuneOptions, progress: Progress
) -> Iterator[Bench]:
    """Sample a representation into the collection's folder of unfinished work.

    Raises:
        ConfigError: fewer documents than the results of a query.
        FormatError: the file of queries is of no use.
    """
    k = options.target.k
    building = path / "building"
    building.mkdir(exist_ok=True)
    snapshot = CollectionSnapshot.open(path, commit)
    try:
        if snapshot.n_documents < k:
            raise ConfigError(
                f"{path} holds {snapshot.n_documents} documents, fewer than the {k} results of a query that recall "
                "is measured on; ask for fewer (--k), or add documents"
            )
        live = live_rows(snapshot)
        if options.queries is None:
            queries = pseudo_queries(snapshot, name, draw(live, MOST, _SEED + 1), _SEED, progress)
        else:
            queries = given_queries(snapshot, name, options.queries, _SEED, progress)
        with tempfile.TemporaryDirectory(dir=building, prefix="tune-") as folder:
            rows = draw(live, options.sample_rows, _SEED)
            vectors = mapped(dense_rows(snapshot, name, rows), Path(folder, "sample"))
            yield Bench(
                vectors=vectors,
                queries=queries,
                truth=scan(vectors, largest_norm(vectors), queries.halves()[0], k).rows,
                live=len(live),
                segments=tuple(entry.n_rows for entry in commit.segments),
                target=options.target,
                memory_bytes=options.build_memory,
                folder=Path(folder),
            )
    finally:
        snapshot.close()
