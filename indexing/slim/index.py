"""The index kind ``slim``: candidates from one fused vector a text, scored again by sparse MaxSim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.index_facts import read_facts, with_defaults, write_facts
from indexing.inverted.index import InvertedIndex
from indexing.slim.building import check_weights, map_fused, write_fused
from indexing.slim.explanation import explain_sparse_maxsim
from indexing.slim.fusing import FUSIONS, without_common_terms
from retrieval.errors import ConfigError, IncompatibleError, unknown_name
from retrieval.protocols import Explanation, SearchRequest
from retrieval.sparse_maxsim import sparse_maxsim
from retrieval.topk import merge, top_k
from retrieval.values import Hits, MultiSparse

DEFAULTS: dict[str, Any] = {
    "rescored": 100,
    "factor": 2.0,
    "fusion": "fused",
    "fusion_weight": 0.99,
    "min_idf": 0.0,
    "scale": None,
    "reorder": True,
}
_SEARCH = ("rescored", "factor", "fusion", "fusion_weight", "min_idf")
_INNER = ("scale", "reorder")
_RANGES = {"factor": (1.0, 1000.0), "fusion_weight": (0.0, 1.0), "min_idf": (0.0, 100.0)}
_FACTS = "slim.json"
_CHUNK = 1 << 22  # scores that exist at a time when every row is scored
_CHECKING_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class SlimIndex:
    """Two stages over sparse token vectors (Li, Lin, Ma & Lin, "SLIM", SIGIR 2023, arXiv:2302.06587).

    First an inverted index over the fused vectors of the rows is searched with the fused vector of the query
    (``indexing.slim.fusing``); then the candidates get their exact MaxSim over the stored vectors, which is the score
    handed out. A row that shares no term with the query scores 0 and is no hit. With at least as many candidates as
    allowed rows every one of them is scored, so the result is exact.

    Deviations from the paper's code: impacts have the scale of the largest weight instead of 5 / 256; a term whose
    idf equals ``min_idf`` stays; a query that would lose every term keeps them; ``lower`` is the paper's, the code's
    being the fusion ``pyserini``. Document frequencies for idf are those of the segment; they choose candidates and
    enter no score.

    Attributes:
        vectors: the rows.
        rescored: candidates that are scored again for each query, at least.
        factor: candidates for each of the k hits, times min_idf + 1; the paper's code has factor 1 and no least number.
        fusion: what candidates are chosen by, a name in ``FUSIONS``.
        fusion_weight: the share of the upper score in "fused" and "pyserini".
        min_idf: candidates are chosen by terms of at least this log(N / df).
    """

    kind: ClassVar[str] = "slim"
    exact: ClassVar[bool] = False
    value: ClassVar[type] = MultiSparse

    vectors: MultiSparse
    rescored: int
    factor: float
    fusion: str
    fusion_weight: float
    min_idf: float
    _inner: InvertedIndex = field(kw_only=True, repr=False)
    _frequencies: NDArray[np.int64] = field(kw_only=True, repr=False)

    def __post_init__(self) -> None:
        _check_search({name: getattr(self, name) for name in _SEARCH})

    # --- building and opening

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and fill in defaults.

        Raises:
            ConfigError: an unknown name or an impossible value.
        """
        values = with_defaults(cls.kind, given, DEFAULTS)
        _check_search(values)
        _inner(values)  # the inverted index checks its own
        return values

    @classmethod
    def fit(cls, vectors: MultiSparse, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters with the scale of impacts, learned from the first segment.

        Raises:
            FormatError: a weight is negative or no number, or a term lies outside the vocabulary.
        """
        check_weights(vectors, _CHECKING_BYTES)
        # the largest weight of the tokens is that of the fused vectors
        return {**parameters, "scale": InvertedIndex.fit(vectors.tokens, _inner(parameters))["scale"]}

    @classmethod
    def build(
        cls,
        vectors: MultiSparse,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Write the fused vectors and their inverted index into an existing folder.

        Args:
            vectors: the rows, memory-mapped.
            folder: where to.
            parameters: what ``parameters`` or ``fit`` returned.
            memory_bytes: how much the fusing, and then the postings in the making, may take at a time.
            progress: called with numbers of rows, N in all.

        Raises:
            FormatError: a weight is negative or no number, or a term lies outside the vocabulary.
        """
        write_fused(vectors, folder, memory_bytes)
        fused, _ = map_fused(folder, vectors.dim)
        InvertedIndex.build(fused, folder, _inner(parameters), memory_bytes=memory_bytes, progress=progress)
        write_facts(folder / _FACTS, _facts(vectors))

    @classmethod
    def load(cls, folder: Path, vectors: MultiSparse, parameters: Mapping[str, Any]) -> Self:
        """Map what ``build`` wrote.

        Raises:
            CorruptError: a file is missing, damaged or cut short, or belongs to other rows.
        """
        read_facts(folder / _FACTS, _facts(vectors))
        fused, frequencies = map_fused(folder, vectors.dim)
        inner = InvertedIndex.load(folder, fused, _inner(parameters))
        chosen = {name: parameters[name] for name in _SEARCH}
        return cls(vectors, **chosen, _inner=inner, _frequencies=frequencies)

    def __len__(self) -> int:
        return len(self.vectors)

    # --- search

    def search(self, queries: MultiSparse, request: SearchRequest) -> Hits:
        """The best of the candidates of each query by exact MaxSim, ties by ascending row.

        A time budget limits the choice of candidates, not the scoring of them.

        Raises:
            IncompatibleError: the queries have another vocabulary.
            ConfigError: a query has a weight that is negative or no number, or a term outside the vocabulary.
        """
        wanted = self.candidates(request.k)
        if wanted >= (len(self) if request.allowed is None else request.allowed.count()):
            return self.exact_search(queries, request)
        self._check_queries(queries)
        fused = FUSIONS[self.fusion](queries, self.fusion_weight)
        chosen = without_common_terms(fused, self._frequencies, len(self), self.min_idf)
        found = self._inner.search(chosen, replace(request, k=wanted))
        return top_k(self._scores(queries, found.rows), request.k, found.rows)

    def exact_search(self, queries: MultiSparse, request: SearchRequest) -> Hits:
        """The same question answered by scoring every allowed row (the errors of ``search``)."""
        self._check_queries(queries)
        rows = np.arange(len(self)) if request.allowed is None else request.allowed.rows()
        step = max(1, _CHUNK // max(1, len(queries)))
        best = Hits.none(len(queries), request.k)
        for start in range(0, len(rows), step):
            part = np.broadcast_to(
                rows[start : start + step], (len(queries), len(rows[start : start + step]))
            )
            best = merge([best, top_k(self._scores(queries, part), request.k, part)], request.k)
        return best

    def candidates(self, k: int) -> int:
        """How many rows are scored again for k results."""
        return max(self.rescored, math.ceil(self.factor * k * (self.min_idf + 1)))

    def with_candidates(self, count: int) -> Self:
        """An index over the same files that scores at least so many again."""
        return replace(self, rescored=max(self.rescored, count))

    def scan_equivalent(self, candidates: int) -> float:
        """How many rows an exact scan compares in the time of a search that scores so many candidates again."""
        return float(candidates)

    def _scores(self, queries: MultiSparse, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        scores = sparse_maxsim(queries, self.vectors, rows)
        return np.where(scores > 0, scores, np.float32(-np.inf))

    def _check_queries(self, queries: MultiSparse) -> None:
        if queries.dim != self.vectors.dim:
            raise IncompatibleError(
                f"the queries are over {queries.dim} terms, the index over {self.vectors.dim}; "
                "encode queries with the encoder of the collection"
            )
        tokens = queries.tokens
        wrong = ~(np.isfinite(tokens.values) & (tokens.values >= 0))
        wrong |= (tokens.indices < 0) | (tokens.indices >= tokens.dim)
        if wrong.any():
            token = int(np.searchsorted(tokens.indptr, np.flatnonzero(wrong)[0], side="right")) - 1
            query = int(np.searchsorted(queries.indptr, token, side="right")) - 1
            raise ConfigError(
                f"query {query} has a weight that is negative or no number, or a term outside the vocabulary; "
                "encode queries with the encoder of the collection"
            )

    # --- explanation

    def explain(self, queries: MultiSparse, rows: NDArray[np.integer]) -> list[Explanation]:
        """Why each row scores what it does for the first query; see ``explain_sparse_maxsim``."""
        query = queries[:1].tokens
        return [
            explain_sparse_maxsim(query, self.vectors[row : row + 1].tokens)
            for row in np.asarray(rows).tolist()
        ]


def _inner(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the inverted index."""
    return InvertedIndex.parameters({name: parameters[name] for name in _INNER})


def _facts(vectors: MultiSparse) -> dict[str, int]:
    return {"n": len(vectors), "dim": vectors.dim, "tokens": len(vectors.tokens)}


def _check_search(values: Mapping[str, Any]) -> None:
    """Refuse settings of a search that are impossible.

    Raises:
        ConfigError: names the setting.
    """
    rescored, fusion = values["rescored"], values["fusion"]
    if not isinstance(rescored, int) or isinstance(rescored, bool) or rescored < 1:
        raise ConfigError(f"rescored of slim is {rescored!r}; it must be a whole number of at least 1")
    if fusion not in FUSIONS:
        raise unknown_name("fusion of slim", str(fusion), FUSIONS)
    for name, (least, most) in _RANGES.items():
        value = values[name]
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(f"{name} of slim is {value!r}; it must be a number from {least:g} to {most:g}")
