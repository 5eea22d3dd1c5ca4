"""BM25 as Lucene scores it, over postings of (row, code), where a code stands for a (tf, field, length byte) triple.

The score of a row is the sum over the query's terms of boost * qtf * idf * tf / (tf + k1 (1 - b + b dl / avgdl)),
with idf = ln(1 + (N - df + 0.5) / (df + 0.5)) and dl rounded to Lucene's one byte (Robertson & Zaragoza 2009;
Kamphuis et al., ECIR 2020, "Lucene (accurate)" without its k1 + 1). Summed in float32 by falling term weight, then
rising term hash: an order that depends on the collection's statistics alone, so neither segments nor batches change
a score. Nothing stored depends on the collection, so adding or deleting equals building anew.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from indexing.bm25 import cold
from indexing.bm25.explanation import AskedTerm, Scoring, explain_row
from indexing.bm25.factors import Factors, term_factors
from indexing.bm25.files import Bm25Files
from indexing.bm25.statistics import Counts, DeadTerms, TermStatistics
from indexing.index_facts import with_defaults
from retrieval.bitmap import Bitmap
from retrieval.compute import parallel
from retrieval.errors import ConfigError, IncompatibleError, unknown_name
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Hits, Terms

DEFAULTS: dict[str, Any] = {"k1": 0.9, "b": 0.4, "weights": {}}
_GRAIN = 16  # queries that are worth a thread
_WIDEST_WINDOW = 1 << 16  # rows
_NO_BITS = np.zeros(0, dtype=np.uint8)


class _Found(NamedTuple):
    """What a segment knows of the entries of a query batch's vocabulary.

    Attributes:
        queries: the batch, while it lives.
        terms: (V_q,) int32, -1 for none; hashes: (V_q,) uint64.
        frequencies: (V_q,) int64, rows that have the term, deleted ones counted.
    """

    queries: weakref.ref[Terms]
    terms: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    frequencies: NDArray[np.int64]


@dataclass
class _Last:
    """The last derived values; each is replaced whole, so that threads need no lock."""

    dead: DeadTerms | None = None
    factors: Factors | None = None
    found: _Found | None = None


def scratch_arrays(widest: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint64]]:
    """Scratch for windows of so many rows."""
    return (
        np.zeros(widest, dtype=np.float32),
        np.empty(2 * widest, dtype=np.float32),
        np.empty(widest + 1, dtype=np.uint64),
    )


class _Scratch(threading.local):
    """What a search of this thread works in: accumulators, all zero between searches, columns, candidates."""

    def __init__(self) -> None:
        self.arrays = scratch_arrays(_WIDEST_WINDOW)


_scratch = _Scratch()


@dataclass(frozen=True, eq=False)
class Bm25Index:
    """Postings of one segment.

    Attributes:
        vectors: the rows.
        k1, b: saturation and length normalisation; may be replaced at search time.
        weights: field -> boost, 1 where not named.
        statistics_: of the whole collection; None scores the segment as if it were the collection.
    """

    kind: ClassVar[str] = "bm25"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = Terms

    vectors: Terms
    k1: float
    b: float
    weights: Mapping[str, float]
    statistics_: TermStatistics | None = None
    _files: Bm25Files = field(kw_only=True, repr=False)
    _last: _Last = field(default_factory=_Last, kw_only=True, repr=False)

    # --- building and opening

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and fill in defaults.

        Raises:
            ConfigError: an unknown name or an impossible value.
        """
        k1, b, weights = with_defaults(cls.kind, given, DEFAULTS).values()
        if not _is_number(k1) or k1 < 0:
            raise ConfigError(f"k1 of bm25 is {k1!r}; it must be a number of at least 0")
        if not _is_number(b) or not 0 <= b <= 1:
            raise ConfigError(f"b of bm25 is {b!r}; it must be a number between 0 and 1")
        if not isinstance(weights, Mapping) or not all(_is_number(w) and w >= 0 for w in weights.values()):
            raise ConfigError(
                f"weights of bm25 are {weights!r}; they must map fields to numbers of at least 0"
            )
        return {
            "k1": float(k1),
            "b": float(b),
            "weights": {str(name): float(w) for name, w in weights.items()},
        }

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
            vectors: the rows, memory-mapped; they are read in runs of about a million entries.
            folder: where to.
            parameters: what ``parameters`` returned; ``weights`` must name fields of the rows.
            memory_bytes: how much the postings in the making may take at a time.
            progress: called with numbers of rows, N in all.
        """
        from indexing.bm25.inversion import count_terms, hash_directory, invert

        _check_weights(vectors, parameters["weights"])
        df, keys, totals = count_terms(vectors, progress)
        reference = term_factors(keys, parameters["k1"], parameters["b"], totals[0], totals[1])
        invert(vectors, folder, df, keys, reference, memory_bytes)
        hashes, hash_terms, buckets = hash_directory(vectors)
        indptr = np.zeros(len(df) + 1, dtype=np.int64)
        np.cumsum(df, out=indptr[1:])
        made: dict[str, NDArray[Any]] = {"keys": keys, "reference": reference, "totals": totals}
        made |= {"hashes": hashes, "hash_terms": hash_terms, "buckets": buckets, "indptr": indptr}
        for name, array in made.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, vectors: Terms, parameters: Mapping[str, Any]) -> Self:
        """Map what ``build`` wrote.

        Raises:
            CorruptError: a file is missing or cut short, or belongs to other rows.
            ConfigError: weights name a field the rows do not have.
        """
        _check_weights(vectors, parameters["weights"])
        files = Bm25Files.map(folder, vectors)
        return cls(vectors, parameters["k1"], parameters["b"], parameters["weights"], _files=files)

    def __len__(self) -> int:
        return len(self.vectors)

    # --- statistics

    def statistics(self, queries: Terms, live: Bitmap | None = None) -> TermStatistics:
        """This segment's share in the collection's statistics, for the terms of a query batch.

        Args:
            queries: the batch; its vocabulary may hold terms that no query uses.
            live: the rows that are not deleted; None for all. What the others take off is kept until
                another bitmap comes.
        """
        found, (n_documents, total_length) = self._look_up(queries), self._totals
        if live is None:
            return TermStatistics(n_documents, total_length, found.frequencies)
        dead = self._last.dead
        if dead is None or dead.live is not live:
            dead = self._last.dead = DeadTerms.count(self.vectors, live)
        return TermStatistics(
            n_documents - dead.n_documents,
            total_length - dead.total_length,
            found.frequencies - dead.frequencies[found.terms],
        )

    def with_statistics(self, statistics: TermStatistics) -> Self:
        """The same index scoring by the statistics of a whole collection."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, statistics_=statistics)
        return view

    def _look_up(self, queries: Terms) -> _Found:
        last = self._last.found
        if last is not None and last.queries() is queries:
            return last
        if queries.fields != self.vectors.fields:
            raise IncompatibleError(
                f"the queries have the fields {list(queries.fields)}, the index has {list(self.vectors.fields)}; "
                "analyse queries with the encoder of the collection"
            )
        n, files, asked = len(queries.term_fields), self._files, queries.vocabulary
        found = _Found(
            weakref.ref(queries),
            np.empty(n, dtype=np.int32),
            np.empty(n, dtype=np.uint64),
            np.empty(n, dtype=np.int64),
        )
        known = (asked.blob, asked.offsets, queries.term_fields, *files[:3], *self._vocabulary, files.indptr)
        if _first_queries.include(queries):
            cold.look_up(*known, *found[1:])
        else:
            _kernels().look_up(*known, *found[1:])
        self._last.found = found
        return found

    @functools.cached_property
    def _vocabulary(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
        """The segment's terms as plain arrays, which numba takes faster than maps."""
        strings = self.vectors.vocabulary
        return np.asarray(strings.blob), np.asarray(strings.offsets), np.asarray(self.vectors.term_fields)

    @functools.cached_property
    def _totals(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(F,) rows with a term in each field, and (F,) its tokens; deleted rows counted."""
        return self._files.totals[0], self._files.totals[1]

    @functools.cached_property
    def _boosts(self) -> NDArray[np.float32]:
        """(F,) the weight of each field."""
        return np.array([self.weights.get(name, 1.0) for name in self.vectors.fields], dtype=np.float32)

    def _factors(self, n_documents: NDArray[np.int64], total_length: NDArray[np.int64]) -> Factors:
        factors = self._last.factors
        if factors is None or factors.key != Factors.key_of(self.k1, self.b, n_documents, total_length):
            files = self._files
            factors = Factors.make(files.keys, files.reference, self.k1, self.b, n_documents, total_length)
            self._last.factors = factors
        return factors

    def _counts(self, found: _Found) -> Counts:
        """What to score by: the collection's statistics, or this segment's own."""
        given = self.statistics_
        if given is None:
            return Counts(found.frequencies, *self._totals)
        return Counts(given.frequencies, given.n_documents, given.total_length)

    # --- search

    def search(self, queries: Terms, request: SearchRequest) -> Hits:
        """The best rows of each query, ties by ascending row; rows without a query term are no hits.

        Raises:
            IncompatibleError: the queries were analysed into other fields.
        """
        n_queries, k = len(queries), min(request.k, max(1, len(self)))
        hits = Hits(np.empty((n_queries, k), dtype=np.int64), np.empty((n_queries, k), dtype=np.float32))
        if n_queries:
            search = self._search_first if _first_queries.include(queries) else self._search
            search(queries, request.allowed, hits)
        return hits if k == request.k else hits.cut(request.k)

    def _search(self, queries: Terms, allowed: Bitmap | None, hits: Hits) -> None:
        files, found = self._files, self._look_up(queries)
        counts = self._counts(found)
        factors = self._factors(counts.n_documents, counts.total_length)
        run = _kernels().search_kernel(files.codes.dtype)
        asked = (queries.indptr, queries.indices, queries.frequencies, queries.term_fields)
        context = (
            found.terms,
            found.hashes,
            counts.frequencies,
            counts.n_documents,
            self._boosts,
            files.indptr,
            files.rows,
            files.codes,
            files.peaks,
            factors.table,
            factors.ratio,
            len(self.vectors),
            _NO_BITS if allowed is None else allowed.bits,
        )
        n = len(hits)
        if n < 2 * _GRAIN:
            run(*asked, 0, n, *context, *_scratch.arrays, hits.rows, hits.scores)
            return

        def search(part: slice) -> None:
            run(*asked, part.start, part.stop, *context, *_scratch.arrays, hits.rows, hits.scores)

        parallel(search, n, grain=_GRAIN)

    def _search_first(self, queries: Terms, allowed: Bitmap | None, hits: Hits) -> None:
        """The same for one query, without numba."""
        files, found = self._files, self._look_up(queries)
        counts = self._counts(found)
        factors = self._factors(counts.n_documents, counts.total_length)
        weighted = []
        for entry, weight in self._asked(queries, found, counts):
            low, high = files.indptr[found.terms[entry]], files.indptr[found.terms[entry] + 1]
            weighted.append((weight, files.rows[low:high], files.codes[low:high]))
        mask = None if allowed is None else allowed.mask()
        cold.best_rows(weighted, factors.table, len(self), mask, hits.rows[0], hits.scores[0])

    def _asked(self, queries: Terms, found: _Found, counts: Counts) -> list[tuple[int, np.float32]]:
        """The entries of the batch's vocabulary that the first query scores, with their weights, in scoring order."""
        asked = []
        n = int(queries.indptr[1])
        for entry, count in zip(queries.indices[:n].tolist(), queries.frequencies[:n].tolist(), strict=True):
            where, df = int(queries.term_fields[entry]), int(counts.frequencies[entry])
            boost = self._boosts[where] * np.float32(count)
            if found.terms[entry] >= 0 and df > 0 and boost > 0:
                asked.append((entry, boost * cold.idf(int(counts.n_documents[where]), df)))
        asked.sort(key=lambda item: (-item[1], int(found.hashes[item[0]])))
        return asked

    # --- explanation

    def explain(self, queries: Terms, rows: NDArray[np.integer]) -> list[Explanation]:
        """Why each row scores what it does for the first query: a part a term, heaviest first."""
        found = self._look_up(queries)
        counts = self._counts(found)
        factors = self._factors(counts.n_documents, counts.total_length)
        asked = [
            AskedTerm(
                queries.vocabulary[entry],
                int(queries.term_fields[entry]),
                int(found.terms[entry]),
                weight,
                int(counts.frequencies[entry]),
            )
            for entry, weight in self._asked(queries, found, counts)
        ]
        context = Scoring(self._files, self.vectors.fields, self._boosts, counts, factors, self.k1, self.b)
        return [explain_row(int(row), asked, context) for row in rows]


class _Kernels(NamedTuple):
    """The compiled loops."""

    look_up: Callable[..., None]
    search_kernel: Callable[[np.dtype[Any]], Callable[..., None]]


@functools.cache
def _kernels() -> _Kernels:
    """Import numba and the kernels once."""
    from indexing.bm25.kernels import search_kernel
    from indexing.bm25.term_kernels import look_up

    return _Kernels(look_up, search_kernel)


_first_queries = cold.FirstQueries()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _check_weights(vectors: Terms, weights: Mapping[str, float]) -> None:
    for name in weights:
        if name not in vectors.fields:
            raise unknown_name("field in the weights of bm25", name, vectors.fields)
