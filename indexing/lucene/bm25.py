"""BM25 by Lucene's own scorers, over terms that were analysed before they reach Lucene."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from indexing.bm25.cold import idf
from indexing.bm25.index import DEFAULTS, Bm25Index
from indexing.bm25.statistics import DeadTerms, TermStatistics
from indexing.index_facts import with_defaults
from indexing.lucene.explanation import leaf, read_explanation
from indexing.lucene.jvm import session
from indexing.lucene.scoring import FoundTerm, bm25_searcher, find_terms, weighted
from indexing.lucene.segment import LuceneSegment
from indexing.lucene.tokens import text_of, token_of
from indexing.lucene.writing import write_segment
from retrieval.bitmap import Bitmap
from retrieval.errors import IncompatibleError
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Hits, Terms

_DEFAULTS = {name: DEFAULTS[name] for name in ("k1", "b")}
_ROWS_AT_ONCE = 2_000


class _Found(NamedTuple):
    """What the segment has of a query batch's vocabulary.

    Attributes:
        queries: the batch, while it lives.
        terms: entry -> the segment's term, None where it has none; entries that no query uses are left out.
    """

    queries: weakref.ref[Terms]
    terms: Mapping[int, FoundTerm | None]


class _Dead(NamedTuple):
    """What deleted rows take off the statistics.

    Attributes:
        counts: by number of term.
        frequencies: term -> deleted rows that have it, where there are any.
    """

    counts: DeadTerms
    frequencies: Mapping[str, int]


class _Scorer(NamedTuple):
    """A searcher and what it was made for: k1, b and the average length."""

    key: tuple[float, float, float]
    searcher: Any


@dataclass
class _Last:
    """The last derived values; each is replaced whole, so that threads need no lock."""

    dead: _Dead | None = None
    found: _Found | None = None
    scorer: _Scorer | None = None
    totals: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None


@dataclass(frozen=True, eq=False)
class LuceneBm25Index:
    """A Lucene segment over analysed terms, scored as kind ``bm25`` scores.

    Scores follow the statistics of the whole collection (``indexing.lucene.scoring``) and equal those of ``bm25`` up to
    the rounding of a float32. Only one field can be scored: Lucene would take another average length for each.

    Attributes:
        vectors: the rows.
        k1, b: saturation and length normalisation; may be replaced at search time.
        statistics_: of the whole collection; None scores the segment as if it were the collection.
    """

    kind: ClassVar[str] = "lucene-bm25"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = Terms

    vectors: Terms
    k1: float
    b: float
    statistics_: TermStatistics | None = None
    _segment: LuceneSegment = field(kw_only=True, repr=False)
    _last: _Last = field(default_factory=_Last, kw_only=True, repr=False)

    # --- building and opening

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check k1 and b and fill in defaults.

        Raises:
            ConfigError: an unknown name or an impossible value.
        """
        checked = Bm25Index.parameters(with_defaults(cls.kind, given, _DEFAULTS))
        return {name: checked[name] for name in _DEFAULTS}

    @classmethod
    def build(
        cls,
        vectors: Terms,
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
            parameters: what ``parameters`` returned; nothing stored depends on them.
            memory_bytes: see ``write_segment``.
            progress: called with numbers of rows, N in all.

        Raises:
            MissingExtraError: the extra ``lucene`` is not installed.
            ConfigError: the Java machine does not start.
            IncompatibleError: the rows have several fields, or lengths other than the sum of their frequencies.
        """
        _check_one_field(vectors)
        write_segment(folder, _texts(vectors), norms=True, memory_bytes=memory_bytes, progress=progress)

    @classmethod
    def load(cls, folder: Path, vectors: Terms, parameters: Mapping[str, Any]) -> Self:
        """Check what ``build`` wrote; Java starts with the first search.

        Raises:
            CorruptError: a file is missing or cut short, or belongs to other rows.
        """
        segment = LuceneSegment.load(folder, len(vectors))
        return cls(vectors, parameters["k1"], parameters["b"], _segment=segment)

    def __len__(self) -> int:
        return len(self.vectors)

    # --- statistics

    def statistics(self, queries: Terms, live: Bitmap | None = None) -> TermStatistics:
        """This segment's share in the collection's statistics, for the terms of a query batch.

        Args:
            queries: the batch; entries of its vocabulary that no query uses count 0.
            live: the rows that are not deleted; None for all. What the others take off is kept until
                another bitmap comes.
        """
        terms, (n_documents, total_length) = self._look_up(queries).terms, self._totals()
        frequencies = np.zeros(len(queries.vocabulary), dtype=np.int64)
        for entry, term in terms.items():
            frequencies[entry] = 0 if term is None else term.df
        if live is None:
            return TermStatistics(n_documents, total_length, frequencies)
        dead = self._last.dead
        if dead is None or dead.counts.live is not live:
            dead = self._last.dead = _count_dead(self.vectors, live)
        for entry in terms:
            frequencies[entry] -= dead.frequencies.get(queries.vocabulary[entry], 0)
        return TermStatistics(
            n_documents - dead.counts.n_documents, total_length - dead.counts.total_length, frequencies
        )

    def with_statistics(self, statistics: TermStatistics) -> Self:
        """The same index scoring by the statistics of a whole collection."""
        return replace(self, statistics_=statistics)

    def _look_up(self, queries: Terms) -> _Found:
        last = self._last.found
        if last is not None and last.queries() is queries:
            return last
        if queries.fields != self.vectors.fields:
            raise IncompatibleError(
                f"the queries have the fields {list(queries.fields)}, the index has {list(self.vectors.fields)}; "
                "analyse queries with the encoder of the collection"
            )
        entries = np.unique(queries.indices).tolist() if len(self) else []
        tokens = [token_of(queries.vocabulary[entry]) for entry in entries]
        with session():
            terms = find_terms(self._segment.terms, tokens) if entries else []
        found = self._last.found = _Found(weakref.ref(queries), dict(zip(entries, terms, strict=True)))
        return found

    def _totals(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(1,) rows with a term and (1,) tokens; deleted rows counted."""
        totals = self._last.totals
        if totals is None:
            lengths = self.vectors.lengths
            totals = self._last.totals = (
                np.count_nonzero(lengths, axis=0),
                lengths.sum(axis=0, dtype=np.int64),
            )
        return totals

    # --- search

    def search(self, queries: Terms, request: SearchRequest) -> Hits:
        """The best rows of each query, ties by ascending row; rows without a query term are no hits.

        Raises:
            IncompatibleError: the queries were analysed into other fields.
            MissingExtraError: the extra ``lucene`` is not installed.
            ConfigError: the Java machine does not start.
            CorruptError: Lucene cannot open its files.
        """
        if len(queries) == 0 or len(self) == 0:
            return Hits.none(len(queries), request.k)
        terms, statistics = self._look_up(queries).terms, self.statistics_ or self.statistics(queries)
        searcher = self._searcher(statistics)

        def query_of(number: int) -> Any:
            asked = list(_asked(queries, number, terms, statistics))
            return weighted((term, weight) for _, term, weight in asked) if asked else None

        return self._segment.search(searcher, len(queries), query_of, request)

    def _searcher(self, statistics: TermStatistics) -> Any:
        n_documents, total_length = int(statistics.n_documents[0]), int(statistics.total_length[0])
        key = (self.k1, self.b, total_length / n_documents if n_documents else 1.0)
        scorer = self._last.scorer
        if scorer is None or scorer.key != key:
            with session():
                scorer = self._last.scorer = _Scorer(key, bm25_searcher(*key))
        return scorer.searcher

    # --- explanation

    def explain(self, queries: Terms, rows: NDArray[np.integer]) -> list[Explanation]:
        """Lucene's explanation of each row's score for the first query: a part a term, heaviest first."""
        terms, statistics = self._look_up(queries).terms, self.statistics_ or self.statistics(queries)
        asked = sorted(_asked(queries, 0, terms, statistics), key=lambda item: -item[2])
        searcher = self._searcher(statistics)
        return [self._explain_row(int(row), queries, asked, searcher, statistics) for row in rows]

    def _explain_row(
        self,
        row: int,
        queries: Terms,
        asked: Sequence[tuple[int, FoundTerm, float]],
        searcher: Any,
        statistics: TermStatistics,
    ) -> Explanation:
        parts = []
        for entry, term, weight in asked:
            with session():
                explained = read_explanation(self._segment.explain(searcher, weighted([(term, weight)]), row))
            if explained is not None:
                parts.append(_part(queries.vocabulary[entry], entry, weight, explained, statistics))
        score = np.float32(sum(part.value for part in parts))  # in float64, as Lucene adds
        return Explanation(self.kind, float(score), tuple(parts), {"k1": self.k1, "b": self.b})


def _part(
    term: str, entry: int, weight: float, explained: Explanation, statistics: TermStatistics
) -> Explanation:
    """A term's part of a score: value, frequency and length are Lucene's, the statistics the collection's."""
    n_documents, df = int(statistics.n_documents[0]), int(statistics.frequencies[entry])
    facts: dict[str, float | int | str] = {
        "tf": int(leaf(explained, "freq").value),
        "df": df,
        "n_documents": n_documents,
        "idf": float(idf(n_documents, df)),
        "length": int(leaf(explained, "dl").value),
        "average_length": float(statistics.total_length[0] / n_documents),
        "weight": weight,
    }
    return Explanation(term, explained.value, (), facts)


def _asked(
    queries: Terms, number: int, terms: Mapping[int, FoundTerm | None], statistics: TermStatistics
) -> Iterator[tuple[int, FoundTerm, float]]:
    """Entry, term and weight (qtf * idf) of what a query asks and the segment has."""
    low, high = int(queries.indptr[number]), int(queries.indptr[number + 1])
    n_documents = int(statistics.n_documents[0])
    for entry, count in zip(
        queries.indices[low:high].tolist(), queries.frequencies[low:high].tolist(), strict=True
    ):
        term, df = terms[entry], int(statistics.frequencies[entry])
        if term is not None and df > 0:
            yield entry, term, count * float(idf(n_documents, df))


def _count_dead(rows: Terms, live: Bitmap) -> _Dead:
    counts = DeadTerms.count(rows, live)
    used = np.flatnonzero(counts.frequencies)
    words = rows.vocabulary.take(used)
    return _Dead(counts, dict(zip(words, counts.frequencies[used].tolist(), strict=True)))


def _check_one_field(rows: Terms) -> None:
    if len(rows.fields) != 1:
        raise IncompatibleError(
            f"lucene-bm25 scores one field, the rows have {list(rows.fields)}; use bm25, or encode one field"
        )


def _texts(rows: Terms) -> Iterator[list[str]]:
    """The rows as Lucene reads them, some thousand at a time."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        entries, positions = np.unique(part.indices, return_inverse=True)
        tokens = [token_of(term) for term in part.vocabulary.take(entries)]
        pairs = list(
            zip((tokens[position] for position in positions), part.frequencies.tolist(), strict=True)
        )
        bounds = part.indptr.tolist()
        _check_lengths(part, start)
        yield [text_of(pairs[low:high]) for low, high in itertools.pairwise(bounds)]


def _check_lengths(rows: Terms, first: int) -> None:
    """Lucene takes the sum of a row's frequencies for its length."""
    ends = np.concatenate([[0], np.cumsum(rows.frequencies, dtype=np.int64)])[rows.indptr]
    wrong = np.flatnonzero(np.diff(ends) != rows.lengths[:, 0])
    if len(wrong):
        row = int(wrong[0])
        raise IncompatibleError(
            f"row {first + row} counts {int(rows.lengths[row, 0])} tokens, its terms occur {int(np.diff(ends)[row])} "
            "times; Lucene cannot score by another length than that; use bm25"
        )
