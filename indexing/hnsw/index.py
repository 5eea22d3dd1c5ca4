"""Approximate search over dense vectors by a navigable small-world graph (our own, FAISS's or hnswlib's).

Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
World graphs", TPAMI 2020, arXiv:1603.09320.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.dense.explanation import explain_inner_products
from indexing.dense.scan import checked, largest_norm, scan
from indexing.file_facts import check_content, check_size, file_facts
from indexing.hnsw.candidates import Graph, Walk
from indexing.hnsw.insertion_order import ORDERS
from indexing.hnsw.tercet_graph import CODES
from indexing.index_facts import read_facts, with_defaults, write_facts
from retrieval.errors import ConfigError, CorruptError, unknown_name
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Dense, Hits

_LOG = logging.getLogger(__name__)
_FACTS = "hnsw.json"

_ROWS_PER_CANDIDATE = 40
_ROWS_PER_CODED_CANDIDATE = 13
"""A walk over stored vectors meets about 15 of them a candidate, each far from the last in memory: 4 to 7 us at width
384 (ef 64: 0.30 ms, 256: 1.2 ms, 1024: 7.2 ms), and 0.9 us over byte codes, where a scan takes 0.06 to 0.1 us a row.
All grow alike with the width."""

BACKENDS = {
    "tercet": "indexing.hnsw.tercet_graph",
    "faiss": "indexing.hnsw.faiss_graph",
    "hnswlib": "indexing.hnsw.hnswlib_graph",
}
"""Name -> module with ``files``, ``memory_needed``, ``build_graph`` and ``open_graph``."""

_DEFAULTS: dict[str, Any] = {"backend": "tercet", "m": 16, "ef_construction": 200, "ef": 64}
_OWN_DEFAULTS: dict[str, Any] = {"codes": "sq8", "prefix": None, "order": "given", "rescored": None}
"""Of the backend ``tercet`` only."""

_RANGES = {
    "m": (2, 512),
    "ef_construction": (1, 1_000_000),
    "ef": (1, 1_000_000),
    "prefix": (1, 1_000_000),
    "rescored": (1, 1_000_000),
}
_OPTIONAL = ("prefix", "rescored")


@dataclass(frozen=True, eq=False)
class HnswIndex:
    """Walks a graph towards the query and scores what it finds like ``FlatIndex`` does.

    The score is the inner product of the stored vectors, by the same kernel as the exact index's, so both give
    a row the same score.

    The backend ``tercet`` compares codes of one byte a component on its walk (``indexing.hnsw.graph``), scores the
    best candidates by the stored vectors, and steps over what a filter denies. Where a filter leaves few rows, or hides
    those that are near a query, all allowed rows are compared by code. Its files are mapped and shared between
    processes.

    The others apply a filter to the candidates after the walk: their own filters would rather return
    some allowed rows met on the way than admit that the neighbourhood holds too few. With filters that follow the
    clusters of the vectors FAISS's kept 0.93 recall at any width, where this one notices. ``indexing.planner`` widens
    the walk ahead of that. With any backend every query for which fewer than min(k, allowed rows) candidates are
    left is answered by an exact scan.

    FAISS's graph is mapped together with the stored vectors, of which it keeps no copy, float16 included.
    hnswlib cannot map: its graph and a float32 copy of the vectors are loaded at the first search. It also keeps
    ``ef`` as state, so searches with different ``ef`` take turns.

    Attributes:
        vectors: N rows, memory-mapped.
        norm: the largest norm of a row.
        graph: opened at the first search, once, and shared by all copies made with ``dataclasses.replace``.
        ef: candidates kept during a walk; raised to k where k is larger.
        steps_over: whether the graph passes denied rows, so that a filter needs no more candidates.
        rescored: candidates scored by the stored vectors where codes chose them; None for half as many again as k,
            and at least 6 more; raised to k.
        prefix: only so many first components are compared on the walk, as Matryoshka vectors allow (AdANNS: Rege et
            al., NeurIPS 2023, arXiv:2305.19435); None for all.
    """

    vectors: Dense
    norm: float
    graph: Graph
    ef: int
    steps_over: bool = False
    rescored: int | None = None
    prefix: int | None = None

    kind: ClassVar[str] = "hnsw"
    exact: ClassVar[bool] = False
    value: ClassVar[type] = Dense

    def __post_init__(self) -> None:
        for name in ("ef", "rescored", "prefix"):
            _check_number(name, getattr(self, name))

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """``backend`` (tercet, faiss, hnswlib), ``m`` (links a node), ``ef_construction`` and ``ef`` with defaults.

        The backend tercet has ``codes`` (sq8, none), ``prefix``, ``rescored`` and ``order`` (see
        ``indexing.hnsw.insertion_order``) besides.

        Raises:
            ConfigError: an unknown parameter, or an impossible value.
        """
        backend = given.get("backend", _DEFAULTS["backend"])
        if backend not in BACKENDS:
            raise unknown_name("backend of index kind 'hnsw'", backend, BACKENDS)
        own = backend == "tercet"
        for name in _OWN_DEFAULTS:
            if name in given and not own:
                raise ConfigError(
                    f"hnsw parameter {name} is for the backend tercet; {backend} does not know it"
                )
        full = with_defaults(cls.kind, given, {**_DEFAULTS, **(_OWN_DEFAULTS if own else {})})
        for name in _RANGES:
            if name in full:
                _check_number(name, full[name])
        if own and full["codes"] not in CODES:
            raise unknown_name("codes of index kind 'hnsw'", full["codes"], CODES)
        if own and full["order"] not in ORDERS:
            raise unknown_name("insertion order", full["order"], ORDERS)
        return full

    @classmethod
    def memory_needed(cls, n: int, dim: int, parameters: Mapping[str, Any], *, half: bool = False) -> int:
        """Bytes a build holds: no backend builds a graph without its vectors, or their codes, in memory."""
        backend = import_module(BACKENDS[parameters["backend"]])
        return int(backend.memory_needed(n, dim, parameters["m"], half))

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
        """Write the graph and hnsw.json. With several threads two builds of FAISS or hnswlib differ in some links.

        Raises:
            ConfigError: the build needs more memory than it may take.
        """
        half = vectors.values.dtype == np.float16
        needed = cls.memory_needed(len(vectors), vectors.dim, parameters, half=half)
        if needed > memory_bytes:
            raise ConfigError(
                f"an hnsw graph over {len(vectors):,} x {vectors.dim} vectors takes {needed / 1e9:.2f} GB to build, "
                f"{memory_bytes / 1e9:.2f} GB are allowed; allow more (--memory), or use the kind flat"
            )
        backend = import_module(BACKENDS[parameters["backend"]])
        facts: dict[str, Any] = {
            "n": len(vectors), "dim": vectors.dim, "norm": largest_norm(vectors), "files": {}
        }  # fmt: skip
        if len(vectors):
            facts |= backend.build_graph(vectors, folder, parameters, progress)
            facts["files"] = {name: file_facts(folder / name) for name in backend.files(parameters)}
        write_facts(folder / _FACTS, facts)

    @classmethod
    def load(cls, folder: Path, vectors: Dense, parameters: Mapping[str, Any]) -> Self:
        """Open what ``build`` wrote; the graph itself is opened, and checksums compared, at the first search.

        Raises:
            CorruptError: hnsw.json is damaged or about other vectors, or a file is missing or cut short.
        """
        facts = read_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim}, "norm")
        backend = import_module(BACKENDS[parameters["backend"]])
        written = _written(folder, facts, backend.files(parameters) if len(vectors) else [])
        for path, noted in written.items():
            check_size(path, noted)

        def check() -> None:
            for path, noted in written.items():
                check_content(path, noted)

        return cls(
            vectors,
            float(facts["norm"]),
            backend.open_graph(folder, vectors, parameters, facts, check),
            int(parameters["ef"]),
            steps_over=parameters["backend"] == "tercet",
            rescored=parameters.get("rescored"),
            prefix=parameters.get("prefix"),
        )

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The k best rows among those the walk finds, and never fewer than min(k, allowed rows).

        Raises:
            CorruptError: the graph on disk is damaged.
            IncompatibleError: the queries have another width.
            ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
        """
        asked = checked(queries, self.vectors.dim)
        n, k, allowed = len(self), request.k, request.allowed
        if allowed is not None and allowed.n != n:
            raise ValueError(f"the bitmap is for {allowed.n} rows, the index has {n}")
        reachable = n if allowed is None else allowed.count()
        if reachable == 0 or len(asked) == 0:
            return Hits.none(len(asked), k)
        wanted = min(k, reachable)
        walked = self.graph.best(asked, wanted, self._walk(wanted), None if reachable == n else allowed)
        hits = walked.cut(k)
        short = np.flatnonzero(hits.rows[:, wanted - 1] < 0)
        if len(short):
            _LOG.debug("fewer than %d candidates for %d queries, scanning for them", wanted, len(short))
            exact = self.exact_search(Dense(asked[short]), request)
            hits.rows[short], hits.scores[short] = exact.rows, exact.scores
        return hits

    def _walk(self, k: int) -> Walk:
        rescored = self._rescored(k)
        return Walk(max(self.candidates(k), rescored), rescored, self.prefix)

    def _rescored(self, k: int) -> int:
        return max(k, self.rescored or k + max(6, k // 2))

    def scored(self, k: int) -> int:
        """How many candidates a search scores by the stored vectors for k results: all where no codes chose them."""
        return self._rescored(k) if self.steps_over else self.candidates(k)

    def exact_search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The same question answered by comparing every allowed row."""
        return scan(self.vectors, self.norm, queries, request.k, request.allowed)

    def candidates(self, k: int) -> int:
        """How many near rows a search keeps for k results."""
        return max(self.ef, k)

    def with_candidates(self, count: int) -> Self:
        """An index over the same graph that keeps at least so many; itself where denied rows are stepped over."""
        if self.steps_over:
            return self
        return replace(self, ef=max(self.ef, min(count, _RANGES["ef"][1])))

    def scan_equivalent(self, candidates: int) -> float:
        """How many rows an exact scan compares in the time of a walk that keeps so many candidates."""
        if self.steps_over:
            return _ROWS_PER_CODED_CANDIDATE * min(candidates, self.ef)
        return _ROWS_PER_CANDIDATE * candidates

    def explain(self, queries: Dense, rows: NDArray[np.integer]) -> list[Explanation]:
        """The inner product of the first query with each row, with norms and cosine."""
        return explain_inner_products(self.vectors, queries, rows)


def _check_number(name: str, value: object) -> None:
    if value is None and name in _OPTIONAL:
        return
    low, high = _RANGES[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"hnsw parameter {name} is {value!r}; it must be an integer from {low} to {high}")


def _written(folder: Path, facts: Mapping[str, Any], names: list[str]) -> dict[Path, Mapping[str, Any]]:
    """What was noted about each file (see ``indexing.file_facts``); before there were several, beside n and dim."""
    noted = facts.get("files", dict.fromkeys(names, facts))
    try:
        return {folder / name: dict(noted[name]) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(folder / _FACTS, f"does not say what the graph's files are ({error!r})") from error
