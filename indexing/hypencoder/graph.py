"""Approximate search by queries' networks: greedily through a graph of neighbouring documents.

Killingback, Zeng & Zamani, "Hypencoder: Hypernetworks for Information Retrieval", SIGIR 2025, arXiv:2502.05364,
algorithm 1.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from indexing.file_facts import check_content, check_size, file_facts
from indexing.hypencoder.exhaustive import chosen_rows
from indexing.hypencoder.explanation import explain_networks
from indexing.hypencoder.neighbours import FILE, map_neighbours, memory_needed, write_neighbours
from indexing.index_facts import read_facts, with_defaults, write_facts
from retrieval.errors import ConfigError, CorruptError
from retrieval.protocols import Explanation, SearchRequest
from retrieval.query_networks import best_rows, checked, network_scores
from retrieval.topk import top_k
from retrieval.values import Dense, Hits, QueryNetwork

_FACTS = "hypencoder.json"
_SEED = 43  # of the entries, as in the paper's code
_ENTRIES = 10_000  # rows that a walk begins with, at most: the paper's number for 8.8 million
_ROWS_PER_ENTRY = 200  # of fewer rows than that
_DEFAULTS: dict[str, Any] = {
    "neighbours": 16,
    "entries": None,
    "ncandidates": 28,
    "explored": 2,
    "max_iter": 200,
}
"""By how many of the best 10 of all rows a walk finds, with untrained networks near inner products of MiniLM's vectors
and without judgements: of what was tried (entries from a 50th to a 200th of the rows, 12 to 48 candidates, 1 to 8
explored) the most at a mean of 10% scored rows, for 60 training queries each of SciFact (5,183 documents), NFCorpus
(3,633), COVID-QA (2,401) and SQuAD (2,067). It found 0.95 on average, where a 50th, 24 and 4 found as many at 11%; in
all four together 0.94 at 3%, instead of 0.93 at 4%. The paper's 10,000 entries, 64 candidates, all explored at once,
and 100 neighbours are for 8.8 million."""
_SEARCH = ("entries", "ncandidates", "explored", "max_iter")
_RANGES = {
    "neighbours": (4, 512),
    "entries": (1, 1_000_000_000),
    "ncandidates": (1, 1_000_000),
    "explored": (1, 1_000_000),
    "max_iter": (0, 1_000_000),
}


class _Scored(NamedTuple):
    """Distinct rows with their scores for one query."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    def kept(self, mask: NDArray[np.bool_]) -> _Scored:
        """Some of them."""
        return _Scored(self.rows[mask], self.scores[mask])

    def allowed(self, allowed: NDArray[np.bool_] | None) -> _Scored:
        """Those that a mask over all rows allows; None allows all."""
        return self if allowed is None else self.kept(allowed[self.rows])

    def joined(self, other: _Scored) -> _Scored:
        """With others."""
        return _Scored(np.concatenate([self.rows, other.rows]), np.concatenate([self.scores, other.scores]))

    def best(self, k: int) -> Hits:
        """The k best of them."""
        return top_k(self.scores[None, :], k, self.rows)


@dataclass(frozen=True, eq=False)
class HypencoderGraphIndex:
    """Scores some random rows, then round by round the neighbours of the best.

    A round takes the best ``explored`` rows whose neighbours were not looked at yet, among the best
    max(``ncandidates``, k) of all, and scores those of their neighbours that were not met before. The walk ends when
    there is no such row, since nothing improves any more, or after ``max_iter`` rounds. The paper explores all
    candidates in a round, and its code those of the last round only; on a CPU, where a round costs little by itself,
    small rounds score fewer rows at equal recall. The random rows are the same for every query; one more leads
    to every row.

    A filter makes a walk longer: denied rows are passed through and do not count among the best of all. A query for
    which fewer than min(k, allowed rows) were found is answered by scoring all of them. With as many ``entries`` as
    there are rows the search is exact.

    Attributes:
        vectors: N rows, memory-mapped.
        links: (N, neighbours) int32, memory-mapped, -1 behind a row's last neighbour.
        start: a row from which links lead to every other.
        check: raises CorruptError where the links on disk have changed.
        entries: rows that a walk begins with; None for a 200th of all, and 10,000 at most.
        ncandidates: best rows whose neighbours are looked at, at least.
        explored: of these, how many a round takes.
        max_iter: rounds, at most.
    """

    vectors: Dense
    links: NDArray[np.int32]
    start: int
    check: Callable[[], None]
    entries: int | None = None
    ncandidates: int = 28
    explored: int = 2
    max_iter: int = 200

    kind: ClassVar[str] = "hypencoder-graph"
    exact: ClassVar[bool] = False
    value: ClassVar[type] = Dense
    query_value: ClassVar[type] = QueryNetwork

    def __post_init__(self) -> None:
        _check_numbers({name: getattr(self, name) for name in _SEARCH})

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """``neighbours`` (of a row; even), ``entries``, ``ncandidates``, ``explored``, ``max_iter`` with defaults.

        Raises:
            ConfigError: an unknown parameter, or an impossible value.
        """
        full = with_defaults(cls.kind, given, _DEFAULTS)
        _check_numbers(full)
        if full["neighbours"] % 2:
            raise ConfigError(
                f"hypencoder-graph parameter neighbours is {full['neighbours']}; it must be even"
            )
        return full

    @classmethod
    def build(
        cls,
        vectors: Dense,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Write the neighbours and hypencoder.json; the graph does not depend on the number of threads.

        Raises:
            ConfigError: the build needs more memory than it may take.
        """
        needed = memory_needed(len(vectors), vectors.dim, parameters["neighbours"])
        if needed > memory_bytes:
            raise ConfigError(
                f"a graph over {len(vectors):,} x {vectors.dim} vectors takes {needed / 1e9:.2f} GB to build, "
                f"{memory_bytes / 1e9:.2f} GB are allowed; allow more (--memory), or use the kind hypencoder"
            )
        facts: dict[str, Any] = {"n": len(vectors), "dim": vectors.dim}
        if len(vectors):
            facts["start"] = write_neighbours(vectors, folder, parameters["neighbours"], progress)
            facts["file"] = file_facts(folder / FILE)
        write_facts(folder / _FACTS, facts)

    @classmethod
    def load(cls, folder: Path, vectors: Dense, parameters: Mapping[str, Any]) -> Self:
        """Open what ``build`` wrote; checksums are compared at the first search.

        Raises:
            CorruptError: hypencoder.json is damaged or about other vectors, or the neighbours are missing or cut.
        """
        facts = read_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim})
        own = {name: parameters[name] for name in _SEARCH}
        if not len(vectors):
            none = np.empty((0, parameters["neighbours"]), dtype=np.int32)
            return cls(vectors, none, -1, lambda: None, **own)
        noted, start = facts.get("file"), facts.get("start")
        if not isinstance(noted, dict) or not isinstance(start, int) or not 0 <= start < len(vectors):
            raise CorruptError(folder / _FACTS, f"does not say what {FILE} is and where a walk starts")
        check_size(folder / FILE, noted)
        links = map_neighbours(folder, len(vectors), parameters["neighbours"])
        return cls(vectors, links, start, _Once(folder / FILE, noted), **own)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: QueryNetwork, request: SearchRequest) -> Hits:
        """The k best rows among those the walk meets, and never fewer than min(k, allowed rows).

        Raises:
            CorruptError: the graph on disk is damaged.
            IncompatibleError: the networks score vectors of another width.
            ValueError: a network holds NaN or infinity, a score exceeds float32, or the bitmap is for another number
                of rows.
        """
        return self.search_counted(queries, request)[0]

    def search_counted(self, queries: QueryNetwork, request: SearchRequest) -> tuple[Hits, NDArray[np.int64]]:
        """The same, and (Q,) how many rows were scored for each query."""
        checked(queries, self.vectors.dim)
        n, k = len(self), request.k
        chosen = chosen_rows(n, request.allowed)
        reachable = n if chosen is None else len(chosen)
        hits, counts = Hits.none(len(queries), k), np.zeros(len(queries), dtype=np.int64)
        if not reachable:
            return hits, counts
        self.check()
        mask = None if chosen is None or request.allowed is None else request.allowed.mask()
        for query in range(len(queries)):
            own = queries[query : query + 1]
            walk = self._walk(own, min(k, reachable), mask)
            counts[query] = len(walk.rows)
            found = walk.allowed(mask).best(k)
            if found.rows[0, min(k, reachable) - 1] < 0:
                found = best_rows(own, self.vectors, chosen, k)
                counts[query] = reachable
            hits.rows[query], hits.scores[query] = found.rows[0], found.scores[0]
        return hits, counts

    def _walk(self, query: QueryNetwork, k: int, allowed: NDArray[np.bool_] | None) -> _Scored:
        """Every row that is scored for one query."""
        rows = self._entry_rows
        walk = _Scored(rows, network_scores(query, self.vectors.values[rows])[0])
        seen, followed = np.zeros(len(self), dtype=np.bool_), np.zeros(len(self), dtype=np.bool_)
        seen[rows] = True
        for _ in range(self.max_iter):
            least = walk.allowed(allowed).best(max(self.ncandidates, k)).scores[0, -1]
            good = walk.kept((walk.scores >= least) & ~followed[walk.rows])
            if not len(good.rows):
                break
            best = good.best(min(self.explored, len(good.rows))).rows[0]
            followed[best] = True
            met = np.unique(self.links[best]).astype(np.int64)
            met = met[(met >= 0) & ~seen[met]]
            seen[met] = True
            walk = walk.joined(_Scored(met, network_scores(query, self.vectors.values[met])[0]))
        return walk

    @cached_property
    def _entry_rows(self) -> NDArray[np.int64]:
        """The rows that every walk begins with, ascending."""
        n = len(self)
        wanted = min(n, _entry_count(n) if self.entries is None else self.entries)
        return np.array(sorted({self.start, *random.Random(_SEED).sample(range(n), wanted)}), dtype=np.int64)

    def exact_search(self, queries: QueryNetwork, request: SearchRequest) -> Hits:
        """The same question answered by scoring every allowed row."""
        return best_rows(queries, self.vectors, chosen_rows(len(self), request.allowed), request.k)

    def candidates(self, k: int) -> int:
        """How many rows are looked around from."""
        return max(self.ncandidates, k)

    def with_candidates(self, count: int) -> Self:
        """Itself: a filter comes before the candidates."""
        return self

    def scan_equivalent(self, candidates: int) -> float:
        """How many rows a walk scores: the entries, and about half as many as its candidates have neighbours."""
        return len(self._entry_rows) + candidates * self.links.shape[1] / 2

    def explain(self, queries: QueryNetwork, rows: NDArray[np.integer]) -> list[Explanation]:
        """The output of the first query's network for each row, and the share of rows that ten hits are found by."""
        if not len(rows):
            return []
        self.check()
        scored = len(self._walk(checked(queries, self.vectors.dim)[:1], min(10, len(self)), None).rows)
        return explain_networks(self.vectors, queries, rows, {"share of rows scored": scored / len(self)})


class _Once:
    """Compares a file with what was noted about it, the first time."""

    def __init__(self, path: Path, noted: Mapping[str, Any]) -> None:
        self._path, self._noted, self._done = path, noted, False

    def __call__(self) -> None:
        if not self._done:
            check_content(self._path, self._noted)
            self._done = True


def _entry_count(n: int) -> int:
    """Entries where none are asked for."""
    return min(_ENTRIES, max(1, n // _ROWS_PER_ENTRY))


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        low, high = _RANGES[name]
        if value is None and name == "entries":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(
                f"hypencoder-graph parameter {name} is {value!r}; it must be an integer from {low} to {high}"
            )
