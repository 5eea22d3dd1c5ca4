"""The index kind ``inverted``: exact and approximate search over sparse vectors with 8-bit impacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.index_facts import read_facts, with_defaults, write_facts
from indexing.inverted.building import build_files, largest_weight
from indexing.inverted.layout import WINDOW_BITS, InvertedFiles
from indexing.scratch import Scratch
from retrieval.bitmap import Bitmap
from retrieval.compute import parallel
from retrieval.errors import ConfigError, IncompatibleError
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Hits, Sparse

DEFAULTS: dict[str, Any] = {"scale": None, "reorder": True, "alpha": 1.0, "beta": 1.0, "bound_terms": None}
_FACTS = "inverted.json"
_GRAIN = 8  # queries that are worth a thread
_ROW_COST = 300  # postings that are added in the time of scoring a row from its vector
_NO_LIMIT = 1 << 40
_NO_BITS = np.zeros(0, dtype=np.uint8)
_NS_PER_BLOCK = 1000.0  # before any search was timed


_scratch = Scratch()


@dataclass(frozen=True, eq=False)
class InvertedIndex:
    """Impacts of one segment: postings by term, bounds of blocks, and a forward copy of each block.

    The score of a row is the sum over the query's terms of query weight times impact times scale, an impact being the
    document's weight rounded to 1 .. 255 steps of ``scale``. At the default settings the hits are exactly the best by
    that score, ties by row, whatever the segmentation. See ``indexing.inverted.search_kernels`` for how.

    Attributes:
        vectors: the rows.
        scale: weight that an impact of 1 stands for; one for the whole collection.
        alpha: below 1, blocks are skipped whose bound is within that factor of the k-th best score (Block-Max
            Pruning's overestimation factor; Mallia, Suel, Tonellotto, SIGIR 2024).
        beta: below 1, only this share of a query's terms is used, the heaviest (the same paper's query pruning).
        bound_terms: bounds are made of this many terms of a query; scores still count all. None for all; 0 makes no
            bounds and adds up every posting.
    """

    kind: ClassVar[str] = "inverted"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = Sparse

    vectors: Sparse
    scale: float
    alpha: float = 1.0
    beta: float = 1.0
    bound_terms: int | None = None
    _files: InvertedFiles = field(kw_only=True, repr=False)
    _pace: list[float] = field(default_factory=lambda: [_NS_PER_BLOCK], kw_only=True, repr=False)

    # --- building and opening

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and fill in defaults.

        Raises:
            ConfigError: an unknown name or an impossible value.
        """
        values = with_defaults(cls.kind, given, DEFAULTS)
        for name in ("alpha", "beta"):
            if not _is_number(values[name]) or not 0 < values[name] <= 1:
                raise ConfigError(
                    f"{name} of inverted is {values[name]!r}; it must be above 0 and at most 1 (exact)"
                )
        if values["scale"] is not None and not (_is_number(values["scale"]) and values["scale"] > 0):
            raise ConfigError(f"scale of inverted is {values['scale']!r}; it must be above 0")
        if not isinstance(values["reorder"], bool):
            raise ConfigError(f"reorder of inverted is {values['reorder']!r}; it must be true or false")
        terms = values["bound_terms"]
        if terms is not None and (not isinstance(terms, int) or isinstance(terms, bool) or terms < 0):
            raise ConfigError(
                f"bound_terms of inverted is {terms!r}; it must be a whole number of at least 0"
            )
        return values

    @classmethod
    def fit(cls, vectors: Sparse, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters with what is learned from the first segment and then holds for the whole collection: the scale.

        Raises:
            FormatError: a weight is negative or no number, or a term lies outside the vocabulary.
        """
        if parameters["scale"] is not None:
            return dict(parameters)
        return {**parameters, "scale": (largest_weight(vectors) or 1.0) / 255}

    @classmethod
    def build(
        cls,
        vectors: Sparse,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Write the index of a segment into an existing folder.

        Weights above 255 steps of a scale fitted to earlier segments count as 255; inverted.json says how many.

        Args:
            vectors: the rows, memory-mapped.
            folder: where to.
            parameters: what ``parameters`` or ``fit`` returned.
            memory_bytes: how much the postings in the making may take at a time.
            progress: called with numbers of rows, N in all.

        Raises:
            FormatError: a weight is negative or no number, or a term lies outside the vocabulary.
        """
        largest_weight(vectors)
        scale = cls.fit(vectors, parameters)["scale"]
        above = build_files(
            vectors,
            folder,
            scale,
            reorder=parameters["reorder"],
            memory_bytes=memory_bytes,
            progress=progress,
        )
        facts = {"n": len(vectors), "dim": vectors.dim, "scale": scale, "weights above the scale": above}
        write_facts(folder / _FACTS, facts)

    @classmethod
    def load(cls, folder: Path, vectors: Sparse, parameters: Mapping[str, Any]) -> Self:
        """Map what ``build`` wrote.

        Raises:
            CorruptError: a file is missing, damaged or cut short, or belongs to other rows.
        """
        scale = read_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim}, "scale")["scale"]
        chosen = {name: parameters[name] for name in ("alpha", "beta", "bound_terms")}
        return cls(vectors, float(scale), **chosen, _files=InvertedFiles.map(folder, vectors))

    def __len__(self) -> int:
        return len(self.vectors)

    # --- search

    def search(self, queries: Sparse, request: SearchRequest) -> Hits:
        """The best rows of each query, ties by ascending row; rows without a query term are no hits.

        With a time budget the most promising blocks are scored until it is likely to be spent.

        Raises:
            IncompatibleError: the queries have another vocabulary.
            ConfigError: a query has a weight that is negative or no number, or a term outside the vocabulary.
        """
        return self.search_counted(queries, request)[0]

    def search_counted(self, queries: Sparse, request: SearchRequest) -> tuple[Hits, NDArray[np.int64]]:
        """``search``, and what it took.

        Returns:
            Hits, and (Q, 5): the postings of the query's terms; blocks with a bound, blocks whose bound passed,
            blocks scored; 1 where all postings were added instead.
        """
        if queries.dim != self.vectors.dim:
            raise IncompatibleError(
                f"the queries are over {queries.dim} terms, the index over {self.vectors.dim}; "
                "encode queries with the encoder of the collection"
            )
        n_queries, k = len(queries), min(request.k, max(1, len(self)))
        hits = Hits(np.empty((n_queries, k), dtype=np.int64), np.empty((n_queries, k), dtype=np.float32))
        counts = np.zeros((n_queries, 5), dtype=np.int64)
        if n_queries and len(self):
            narrow = None if request.allowed is None else self._narrow(queries, request.allowed)
            if narrow is not None:
                self._search_rows(queries, narrow, hits)
            else:
                self._search_all(queries, request, hits, counts)
        elif n_queries:
            hits.rows[:], hits.scores[:] = -1, -np.inf
        return (hits if k == request.k else hits.cut(request.k)), counts

    def _search_all(
        self, queries: Sparse, request: SearchRequest, hits: Hits, counts: NDArray[np.int64]
    ) -> None:
        from indexing.inverted.search_kernels import BOUNDED, SCORED, search_kernel

        files, n = self._files, len(hits)
        run = search_kernel(files.directory.dtype)
        half = len(files.starts) // 2  # blocks, rounded up to an even number
        budget = _NO_LIMIT
        if request.time_budget_ms is not None:
            budget = max(1, int(request.time_budget_ms * 1e6 / n / self._pace[0]))
        cut = _NO_LIMIT if self.bound_terms is None else self.bound_terms
        settings = (self.alpha, self.beta, cut, budget)
        allowed = _NO_BITS if request.allowed is None else request.allowed.bits

        def search(part: slice) -> None:
            wrong = run(
                *(queries.indptr, queries.indices, queries.values, self.scale, part.start, part.stop),
                *settings,
                *files,
                allowed,
                _scratch.take("bounds", 2 * half, np.uint16),
                _scratch.take("found", len(files.starts), np.int64),
                _scratch.take("accumulators", 1 << WINDOW_BITS, np.uint32),
                _scratch.take("heap", hits.rows.shape[1], np.uint64),
                *(hits.rows, hits.scores, counts),
            )
            if wrong >= 0:
                raise _wrong_query(wrong)

        started = perf_counter()
        if n < 2 * _GRAIN:
            search(slice(0, n))
        else:
            parallel(search, n, grain=_GRAIN)
        if request.time_budget_ms is not None:
            # a bound costs about a thousandth of scoring its block
            blocks = counts[:, SCORED].sum() + counts[:, BOUNDED].sum() / 1000
            self._pace[0] = max(1.0, (perf_counter() - started) * 1e9 / max(1.0, blocks))

    def _narrow(self, queries: Sparse, allowed: Bitmap) -> NDArray[np.int64] | None:
        """The allowed rows, where scoring them one by one is the least work."""
        indptr = self._files.indptr
        inside = queries.indices[(queries.indices >= 0) & (queries.indices < self.vectors.dim)]
        postings = int((indptr[inside + 1] - indptr[inside]).sum())
        if allowed.count() * _ROW_COST * len(queries) > postings:
            return None
        return allowed.rows()

    def _search_rows(self, queries: Sparse, rows: NDArray[np.int64], hits: Hits) -> None:
        from indexing.inverted.search_kernels import search_rows

        vectors = self.vectors
        table = _scratch.take("table", vectors.dim, np.uint32)
        heap = _scratch.take("heap", hits.rows.shape[1], np.uint64)
        for query in range(len(queries)):
            mine = slice(int(queries.indptr[query]), int(queries.indptr[query + 1]))
            wrong = search_rows(
                *(vectors.indptr, vectors.indices, vectors.values, self.scale),
                *(queries.indices[mine], queries.values[mine], table, rows),
                *(heap, hits.rows[query], hits.scores[query]),
            )
            if wrong >= 0:
                raise _wrong_query(query)

    # --- explanation

    def explain(self, queries: Sparse, rows: NDArray[np.integer]) -> list[Explanation]:
        """Why each row scores what it does for the first query: a part a term, heaviest first.

        A part's label is the number of the term, for someone who has the vocabulary to replace.
        """
        end = int(queries.indptr[1])
        weights = dict(zip(queries.indices[:end].tolist(), queries.values[:end].tolist(), strict=True))
        explained = []
        for row in np.asarray(rows).tolist():
            mine = slice(int(self.vectors.indptr[row]), int(self.vectors.indptr[row + 1]))
            parts = []
            for term, value in zip(self.vectors.indices[mine], self.vectors.values[mine], strict=True):
                weight = weights.get(int(term), 0.0)
                if weight > 0 and value > 0:
                    kept = min(255, max(1, int(value / self.scale + 0.5))) * self.scale
                    facts = {"query weight": weight, "document weight": kept}
                    parts.append(Explanation(str(int(term)), weight * kept, facts=facts))
            parts.sort(key=lambda part: -part.value)
            explained.append(
                Explanation("sum over shared terms", sum(part.value for part in parts), tuple(parts))
            )
        return explained


def _wrong_query(query: int) -> ConfigError:
    return ConfigError(
        f"query {query} has a weight that is negative or no number, or a term outside the vocabulary; "
        "encode queries with the encoder of the collection"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
