"""Approximate search over dense vectors by a navigable small-world graph (FAISS's or hnswlib's).

Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
World graphs", TPAMI 2020, arXiv:1603.09320.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from indexing.dense_explanation import explain_inner_products
from indexing.dense_scan import checked, largest_norm, rank_rows, scan
from indexing.index_facts import read_facts, with_defaults, write_facts
from retrieval.errors import ConfigError, CorruptError, unknown_name
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Dense, Hits

_LOG = logging.getLogger(__name__)
_FACTS = "hnsw.json"

_ROWS_PER_CANDIDATE = 40
"""A walk meets about 15 vectors a candidate, each far from the last in memory: 4 to 7 us a candidate at width 384
(ef 64: 0.30 ms, 256: 1.2 ms, 1024: 7.2 ms), where a scan takes 0.06 to 0.1 us a row; both grow alike with the width."""

BACKENDS = {"faiss": "indexing.hnsw_faiss", "hnswlib": "indexing.hnsw_hnswlib"}
"""Name -> module with ``build_graph``, ``memory_needed`` and ``open_graph``."""

_DEFAULTS = {"m": 16, "ef_construction": 200, "ef": 64}
_RANGES = {"m": (2, 512), "ef_construction": (1, 1_000_000), "ef": (1, 1_000_000)}


class Graph(Protocol):
    """A backend's graph, opened."""

    def nearest(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """(Q, count) rows near each query by a walk that keeps ``count`` candidates; -1 where fewer were found."""
        ...


@dataclass(frozen=True, eq=False)
class HnswIndex:
    """Walks a graph towards the query and scores what it finds like ``FlatIndex`` does.

    The score is the inner product of the stored vectors, by the same kernel as the exact index's, so both give
    a row the same score.

    A filter is applied to the candidates after the walk. The filters inside the backends would rather return
    some allowed rows met on the way than admit that the neighbourhood holds too few: with filters that follow the
    clusters of the vectors FAISS's kept 0.93 recall at any width, where this one notices. Every query for which
    fewer than min(k, allowed rows) candidates are left, or whose walk went astray, is answered by an exact scan.
    ``indexing.planner`` widens the walk ahead of that, or scans at once where that is cheaper.

    FAISS's graph is mapped together with the stored vectors, of which it keeps no copy, float16 included.
    hnswlib cannot map: its graph and a float32 copy of the vectors are loaded at the first search. It also keeps
    ``ef`` as state, so searches with different ``ef`` take turns.

    Attributes:
        vectors: N rows, memory-mapped.
        norm: the largest norm of a row.
        graph: opened at the first search, once, and shared by all copies made with ``dataclasses.replace``.
        ef: candidates kept during a walk; raised to k where k is larger.
    """

    vectors: Dense
    norm: float
    graph: Graph
    ef: int

    kind: ClassVar[str] = "hnsw"
    exact: ClassVar[bool] = False
    value: ClassVar[type] = Dense

    def __post_init__(self) -> None:
        _check_number("ef", self.ef)

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """``backend`` (faiss, hnswlib), ``m`` (links a node), ``ef_construction`` and ``ef`` with defaults.

        Raises:
            ConfigError: an unknown parameter, or an impossible value.
        """
        full = with_defaults(cls.kind, given, {"backend": "faiss", **_DEFAULTS})
        if full["backend"] not in BACKENDS:
            raise unknown_name("backend of index kind 'hnsw'", full["backend"], BACKENDS)
        for name in _RANGES:
            _check_number(name, full[name])
        return full

    @classmethod
    def memory_needed(cls, n: int, dim: int, parameters: Mapping[str, Any], *, half: bool = False) -> int:
        """Bytes a build holds: no backend builds a graph without its vectors in memory."""
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
        """Write the graph and hnsw.json. With several threads two builds differ slightly in their links.

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
        backend = parameters["backend"]
        path = _graph_path(folder, backend)
        facts: dict[str, Any] = {
            "n": len(vectors), "dim": vectors.dim, "norm": largest_norm(vectors), "bytes": 0, "crc32": 0
        }  # fmt: skip
        if len(vectors):
            import_module(BACKENDS[backend]).build_graph(
                vectors, path, parameters["m"], parameters["ef_construction"], progress
            )
            facts["bytes"], facts["crc32"] = path.stat().st_size, _crc32(path)
        write_facts(folder / _FACTS, facts)

    @classmethod
    def load(cls, folder: Path, vectors: Dense, parameters: Mapping[str, Any]) -> Self:
        """Open what ``build`` wrote; the graph itself is opened, and its checksum compared, at the first search.

        Raises:
            CorruptError: hnsw.json is damaged or about other vectors, or the graph is missing or cut short.
        """
        facts = read_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim}, "norm")
        backend = parameters["backend"]
        path = _graph_path(folder, backend)
        if len(vectors):
            _check_size(path, int(facts.get("bytes", -1)))

        def check() -> None:
            if _crc32(path) != facts.get("crc32"):
                raise CorruptError(path, "its checksum does not match (changed since it was written)")

        graph = import_module(BACKENDS[backend]).open_graph(path, vectors, check)
        return cls(vectors, float(facts["norm"]), graph, int(parameters["ef"]))

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
        rows = self.graph.nearest(asked, min(self.candidates(k), n))
        if allowed is not None:
            rows = np.where((rows >= 0) & (allowed.bits[rows >> 3] >> (rows & 7) & 1 == 1), rows, -1)
        hits = rank_rows(self.vectors, asked, rows, k)
        wanted = min(k, reachable)
        short = np.flatnonzero(hits.rows[:, wanted - 1] < 0)
        if len(short):
            _LOG.debug("fewer than %d candidates for %d queries, scanning for them", wanted, len(short))
            exact = self.exact_search(Dense(asked[short]), request)
            hits.rows[short], hits.scores[short] = exact.rows, exact.scores
        return hits

    def exact_search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The same question answered by comparing every allowed row."""
        return scan(self.vectors, self.norm, queries, request.k, request.allowed)

    def candidates(self, k: int) -> int:
        """How many near rows a search keeps for k results."""
        return max(self.ef, k)

    def with_candidates(self, count: int) -> Self:
        """An index over the same graph that keeps at least so many."""
        return replace(self, ef=max(self.ef, min(count, _RANGES["ef"][1])))

    def scan_equivalent(self, candidates: int) -> float:
        """How many rows an exact scan compares in the time of a walk that keeps so many candidates."""
        return _ROWS_PER_CANDIDATE * candidates

    def explain(self, queries: Dense, rows: NDArray[np.integer]) -> list[Explanation]:
        """The inner product of the first query with each row, with norms and cosine."""
        return explain_inner_products(self.vectors, queries, rows)


def _check_number(name: str, value: object) -> None:
    low, high = _RANGES[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"hnsw parameter {name} is {value!r}; it must be an integer from {low} to {high}")


def _graph_path(folder: Path, backend: str) -> Path:
    return folder / f"graph.{backend}"


def _check_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
    if size != expected:
        raise CorruptError(path, f"has {size} bytes, {expected} were written")


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
