"""Learned sparse vectors in Lucene: a term's impact stands where its frequency would."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.exchange.impacts import check_weights, quantise
from indexing.index_facts import with_defaults
from indexing.lucene.explanation import read_explanation
from indexing.lucene.jvm import java, session
from indexing.lucene.segment import LuceneSegment, any_of, new_searcher, term_query
from indexing.lucene.tokens import text_of
from indexing.lucene.writing import write_segment
from retrieval.errors import ConfigError, IncompatibleError
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Hits, Sparse

_DEFAULTS = {"scale": 0.02}
_ROWS_AT_ONCE = 2_000


@dataclass(frozen=True, eq=False)
class LuceneImpactIndex:
    """A Lucene segment whose terms are numbers of the vocabulary and whose frequencies are 8-bit impacts.

    A weight w is kept as round(w / scale), at least 1 and at most 255; a score is the sum of query weight times
    impact times scale. Over these rounded weights the index is exact under any filter; how much the rounding moves
    a score is at most scale / 2 for each unit of query weight (scale, for weights below scale / 2).

    Attributes:
        vectors: the rows.
        scale: the weight of impact 1; the same in all segments, so that scores compare.
    """

    kind: ClassVar[str] = "lucene-impact"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = Sparse

    vectors: Sparse
    scale: float
    _segment: LuceneSegment = field(kw_only=True, repr=False)

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the scale; 0.02 unless given, which reaches up to weights of 5.1.

        Raises:
            ConfigError: an unknown name, or no positive number.
        """
        scale = with_defaults(cls.kind, given, _DEFAULTS)["scale"]
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
            raise ConfigError(f"scale of lucene-impact is {scale!r}; it must be a number above 0")
        return {"scale": float(scale)}

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

        Args:
            vectors: the rows, memory-mapped; they are read some thousand at a time.
            folder: where to.
            parameters: what ``parameters`` returned.
            memory_bytes: see ``write_segment``.
            progress: called with numbers of rows, N in all.

        Raises:
            MissingExtraError: the extra ``lucene`` is not installed.
            ConfigError: the Java machine does not start, or a weight is too large for the scale.
            FormatError: a weight is negative or no number.
        """
        texts = _texts(vectors, parameters["scale"])
        write_segment(folder, texts, norms=False, memory_bytes=memory_bytes, progress=progress)

    @classmethod
    def load(cls, folder: Path, vectors: Sparse, parameters: Mapping[str, Any]) -> Self:
        """Check what ``build`` wrote; Java starts with the first search.

        Raises:
            CorruptError: a file is missing or cut short, or belongs to other rows.
        """
        return cls(vectors, parameters["scale"], _segment=LuceneSegment.load(folder, len(vectors)))

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Sparse, request: SearchRequest) -> Hits:
        """The best rows of each query, ties by ascending row; rows without a query term are no hits.

        Raises:
            IncompatibleError: the queries are over a vocabulary of another size.
            ValueError: a query weight is negative or no number.
            MissingExtraError: the extra ``lucene`` is not installed.
            ConfigError: the Java machine does not start.
            CorruptError: Lucene cannot open its files.
        """
        self._check(queries)
        if len(queries) == 0 or len(self) == 0:
            return Hits.none(len(queries), request.k)

        def query_of(number: int) -> Any:
            asked = [(term_query(str(term)), weight * self.scale) for term, weight in _asked(queries, number)]
            return any_of(asked) if asked else None

        return self._segment.search(self._searcher(), len(queries), query_of, request)

    def explain(self, queries: Sparse, rows: NDArray[np.integer]) -> list[Explanation]:
        """Each row's score for the first query: a part a term, heaviest query weight first."""
        self._check(queries)
        asked = sorted(_asked(queries, 0), key=lambda item: -item[1])
        return [self._explain_row(int(row), asked) for row in rows]

    def _explain_row(self, row: int, asked: list[tuple[int, float]]) -> Explanation:
        parts, searcher = [], self._searcher()
        for term, weight in asked:
            with session():
                explained = read_explanation(self._segment.explain(searcher, term_query(str(term)), row))
            if explained is not None:
                impact = np.float32(explained.value)
                facts = {
                    "impact": int(impact),
                    "document weight": float(impact) * self.scale,
                    "query weight": weight,
                }
                parts.append(
                    Explanation(str(term), float(impact * np.float32(weight * self.scale)), (), facts)
                )
        score = np.float32(sum(part.value for part in parts))  # in float64, as Lucene adds
        return Explanation(self.kind, float(score), tuple(parts), {"scale": self.scale})

    def _searcher(self) -> Any:
        with session():
            similarity = java("io.anserini.search.similarity.ImpactSimilarity")()
            return new_searcher(self._segment.reader, similarity)

    def _check(self, queries: Sparse) -> None:
        if queries.dim != self.vectors.dim:
            raise IncompatibleError(
                f"the queries have {queries.dim} terms in their vocabulary, the index {self.vectors.dim}; "
                "encode queries with the encoder of the collection"
            )
        wrong = np.flatnonzero(~(queries.values >= 0) | np.isinf(queries.values))
        if len(wrong):
            number = int(np.searchsorted(queries.indptr, wrong[0], side="right")) - 1
            raise ValueError(
                f"query vector {number} has the weight {queries.values[wrong[0]]}; Lucene takes weights from 0 up"
            )


def _asked(queries: Sparse, number: int) -> Iterator[tuple[int, float]]:
    """The terms of a query that weigh anything."""
    low, high = int(queries.indptr[number]), int(queries.indptr[number + 1])
    pairs = zip(queries.indices[low:high].tolist(), queries.values[low:high].tolist(), strict=True)
    return ((term, weight) for term, weight in pairs if weight > 0)


def _texts(rows: Sparse, scale: float) -> Iterator[list[str]]:
    """The rows as Lucene reads them, some thousand at a time; weights of 0 are left out."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        check_weights(part, start)
        kept = part.values > 0
        impacts = quantise(part.values[kept], scale).tolist()
        pairs = list(zip(map(str, part.indices[kept].tolist()), impacts, strict=True))
        bounds = np.concatenate([[0], np.cumsum(kept)])[part.indptr].tolist()
        yield [text_of(pairs[low:high]) for low, high in itertools.pairwise(bounds)]
