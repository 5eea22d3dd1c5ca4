"""BM25 as Lucene scores it, over postings of (row, code), where a code stands for a (tf, length byte) pair.

The score of a row is the sum over the query's terms of boost * qtf * idf * tf / (tf + k1 (1 - b + b dl / avgdl)),
with idf = ln(1 + (N - df + 0.5) / (df + 0.5)) and dl rounded to Lucene's one byte (Robertson & Zaragoza 2009;
Kamphuis et al., ECIR 2020, "Lucene (accurate)" without its k1 + 1). Summed in float32 by falling term weight, then
rising term hash. That order depends on the collection's statistics alone, so neither segments nor batches change a score.

A segment has few distinct pairs, so their factors are computed anew for each avgdl and stay exact through adds
and deletes; nothing stored depends on the collection.
"""

from __future__ import annotations

import functools
import json
import math
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis.lengths import BYTE_LENGTHS
from retrieval.bitmap import Bitmap
from retrieval.compute import parallel
from retrieval.errors import ConfigError, CorruptError, IncompatibleError, unknown_name
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Hits, Terms
from retrieval.values.storage import map_array

DEFAULTS: dict[str, Any] = {"k1": 0.9, "b": 0.4, "weights": {}}
_ARRAYS = (
    "hashes",
    "hash_terms",
    "buckets",
    "indptr",
    "rows",
    "codes",
    "peaks",
    "pairs",
    "reference",
    "totals",
)
_NO_BITMAP = np.zeros(0, dtype=np.uint8)
_GRAIN = 16  # queries that are worth a thread


@dataclass(frozen=True, eq=False)
class TermStatistics:
    """What scores depend on beyond the row itself; statistics of segments add up.

    Attributes:
        n_documents: (F,) int64, rows with at least one term in the field.
        total_length: (F,) int64, tokens in the field.
        frequencies: (V_q,) int64, rows that have each entry of the query batch's vocabulary.
    """

    n_documents: NDArray[np.int64]
    total_length: NDArray[np.int64]
    frequencies: NDArray[np.int64]

    def __add__(self, other: TermStatistics) -> TermStatistics:
        return TermStatistics(
            self.n_documents + other.n_documents,
            self.total_length + other.total_length,
            self.frequencies + other.frequencies,
        )


@dataclass(frozen=True, eq=False)
class _Dead:
    """What deleted rows take off the statistics."""

    live: Bitmap
    frequencies: NDArray[np.int64]
    n_documents: NDArray[np.int64]
    total_length: NDArray[np.int64]


class _Found(NamedTuple):
    """What a segment knows of the entries of a query batch's vocabulary.

    Attributes:
        queries: the batch, while it lives.
        terms: (V_q,) int32, -1 for none; hashes: (V_q,) uint64; frequencies: (V_q,) int64, deleted rows counted.
    """

    queries: weakref.ref[Terms]
    terms: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    frequencies: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Factors:
    """tf / (tf + norm) of each code at one average length, and how far it exceeds the reference."""

    key: tuple[Any, ...]
    table: NDArray[np.float32]
    ratio: float


class _Scratch(threading.local):
    """Accumulators of this thread, all zero between searches."""

    def __init__(self) -> None:
        from indexing.bm25_kernels import WIDEST

        self.accumulators = np.zeros(WIDEST, dtype=np.float32)


@functools.cache
def _scratch() -> _Scratch:
    return _Scratch()


@dataclass
class _Cache:
    """The last derived values; replaced whole, so that threads need no lock."""

    dead: _Dead | None = None
    factors: _Factors | None = None
    found: _Found | None = None


@dataclass(frozen=True, eq=False)
class Bm25Index:
    """Postings of one segment.

    Attributes:
        vectors: the forward rows.
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
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    statistics_: TermStatistics | None = None
    _cache: _Cache = field(default_factory=_Cache, repr=False)

    # --- building and opening

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and fill in defaults.

        Raises:
            ConfigError: an unknown name or an impossible value.
        """
        for name in given:
            if name not in DEFAULTS:
                raise unknown_name("parameter of bm25", name, DEFAULTS)
        merged = {**DEFAULTS, **given}
        k1, b, weights = merged["k1"], merged["b"], merged["weights"]
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
            "weights": {str(name): float(weight) for name, weight in weights.items()},
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
            vectors: the rows, memory-mapped; entries are read in runs of about a million.
            folder: where to.
            parameters: what ``parameters`` returned; ``weights`` must name fields of the rows.
            memory_bytes: how much the postings in the making may take at a time.
            progress: called with numbers of rows, N in all.
        """
        from indexing.bm25_kernels import hash_terms
        from indexing.inversion import count_terms, invert

        _check_weights(vectors, parameters["weights"])
        df, pairs, totals = count_terms(vectors, progress)
        tf, fields, lengths = _unpack(pairs, len(vectors.fields))
        table = _factors(tf, fields, lengths, parameters["k1"], parameters["b"], totals[0], totals[1])
        invert(vectors, folder, df, pairs, table, memory_bytes)

        vocabulary = vectors.vocabulary
        hashes = hash_terms(
            np.asarray(vocabulary.blob), np.asarray(vocabulary.offsets), np.asarray(vectors.term_fields)
        )
        order = np.argsort(hashes, kind="stable")
        bits = max(0, len(hashes).bit_length() - 1)
        starts = np.arange((1 << bits) + 1, dtype=np.uint64)[:-1] << np.uint64(64 - bits) if bits else [0]
        buckets = np.append(np.searchsorted(hashes[order], np.asarray(starts, dtype=np.uint64)), len(hashes))
        indptr = np.zeros(len(df) + 1, dtype=np.int64)
        np.cumsum(df, out=indptr[1:])
        made = {
            "hashes": hashes[order],
            "hash_terms": order.astype(np.int32),
            "buckets": buckets.astype(np.int64),
            "indptr": indptr,
            "pairs": pairs,
            "reference": table,
            "totals": totals,
        }
        for name, array in made.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        facts = {"rows": len(vectors), "terms": len(df), "postings": int(df.sum()), "pairs": len(pairs)}
        (folder / "bm25.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, vectors: Terms, parameters: Mapping[str, Any]) -> Self:
        """Map what ``build`` wrote.

        Raises:
            CorruptError: a file is missing or cut short, or belongs to other rows.
            ConfigError: weights name a field the rows do not have.
        """
        _check_weights(vectors, parameters["weights"])
        arrays = {name: np.asarray(map_array(folder / f"{name}.npy")) for name in _ARRAYS}
        n_terms = len(vectors.vocabulary)
        if len(arrays["indptr"]) != n_terms + 1 or len(arrays["hashes"]) != n_terms:
            raise CorruptError(folder, f"indexes another vocabulary than the {n_terms} terms of its rows")
        if len(arrays["rows"]) != len(vectors.indices) or len(arrays["codes"]) != len(vectors.indices):
            raise CorruptError(
                folder, f"holds {len(arrays['rows'])} postings, expected {len(vectors.indices)}"
            )
        return cls(vectors, parameters["k1"], parameters["b"], parameters["weights"], arrays)

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
        found, totals = self._look_up(queries), self.arrays["totals"]
        if live is None:
            return TermStatistics(totals[0], totals[1], found.frequencies)
        dead = self._dead(live)
        return TermStatistics(
            totals[0] - dead.n_documents,
            totals[1] - dead.total_length,
            found.frequencies - dead.frequencies[found.terms],
        )

    def with_statistics(self, statistics: TermStatistics) -> Self:
        """The same index scoring by the statistics of a whole collection."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, statistics_=statistics)
        return view

    def _dead(self, live: Bitmap) -> _Dead:
        dead = self._cache.dead
        if dead is None or dead.live is not live:
            frequencies = np.zeros(len(self.vectors.vocabulary) + 1, dtype=np.int64)  # the last one for -1
            n_documents = np.zeros(len(self.vectors.fields), dtype=np.int64)
            total_length = np.zeros(len(self.vectors.fields), dtype=np.int64)
            rows = (~live).rows()
            for start in range(0, len(rows), 10_000):
                part = self.vectors.take(rows[start : start + 10_000])
                np.add.at(frequencies, part.indices, 1)
                n_documents += np.count_nonzero(part.lengths, axis=0)
                total_length += part.lengths.sum(axis=0, dtype=np.int64)
            dead = self._cache.dead = _Dead(live, frequencies, n_documents, total_length)
        return dead

    # --- search

    def search(self, queries: Terms, request: SearchRequest) -> Hits:
        """The best rows of each query, ties by ascending row; rows without a query term are no hits.

        Raises:
            IncompatibleError: the queries were analysed into other fields.
        """
        n_queries, k = len(queries), min(request.k, max(1, len(self)))
        hits = Hits(np.empty((n_queries, k), dtype=np.int64), np.empty((n_queries, k), dtype=np.float32))
        if n_queries:
            self._search_into(queries, request.allowed, hits)
        return hits if k == request.k else hits.cut(request.k)

    def _search_into(self, queries: Terms, allowed: Bitmap | None, hits: Hits) -> None:
        from indexing.bm25_kernels import search_kernel

        arrays = self.arrays
        found = self._look_up(queries)
        statistics = self.statistics_ or self.statistics(queries)
        factors = self._factors(statistics)
        run = search_kernel(arrays["codes"].dtype)

        def search(part: slice) -> None:
            run(
                queries.indptr,
                queries.indices,
                queries.frequencies,
                queries.term_fields,
                part.start,
                part.stop,
                found.terms,
                found.hashes,
                statistics.frequencies,
                statistics.n_documents,
                self._boosts,
                arrays["indptr"],
                arrays["rows"],
                arrays["codes"],
                arrays["peaks"],
                factors.table,
                factors.ratio,
                len(self),
                _NO_BITMAP if allowed is None else allowed.bits,
                _scratch().accumulators,
                hits.rows,
                hits.scores,
            )

        if len(queries) < 2 * _GRAIN:
            search(slice(0, len(queries)))
        else:
            parallel(search, len(queries), grain=_GRAIN)

    def _look_up(self, queries: Terms) -> _Found:
        last = self._cache.found
        if last is not None and last.queries() is queries:
            return last
        if queries.fields != self.vectors.fields:
            raise IncompatibleError(
                f"the queries have the fields {list(queries.fields)}, the index has {list(self.vectors.fields)}; "
                "analyse queries with the encoder of the collection"
            )
        from indexing.bm25_kernels import look_up

        n, arrays = len(queries.term_fields), self.arrays
        found = _Found(
            weakref.ref(queries),
            np.empty(n, dtype=np.int32),
            np.empty(n, dtype=np.uint64),
            np.empty(n, dtype=np.int64),
        )
        look_up(
            queries.vocabulary.blob,
            queries.vocabulary.offsets,
            queries.term_fields,
            arrays["hashes"],
            arrays["hash_terms"],
            arrays["buckets"],
            *self._vocabulary,
            arrays["indptr"],
            found.terms,
            found.hashes,
            found.frequencies,
        )
        self._cache.found = found
        return found

    @functools.cached_property
    def _vocabulary(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
        """The segment's terms as plain arrays."""
        strings = self.vectors.vocabulary
        return np.asarray(strings.blob), np.asarray(strings.offsets), np.asarray(self.vectors.term_fields)

    @functools.cached_property
    def _boosts(self) -> NDArray[np.float32]:
        """(F,) the weight of each field."""
        return np.array([self.weights.get(name, 1.0) for name in self.vectors.fields], dtype=np.float32)

    def _factors(self, statistics: TermStatistics) -> _Factors:
        key = (self.k1, self.b, statistics.n_documents.tobytes(), statistics.total_length.tobytes())
        factors = self._cache.factors
        if factors is None or factors.key != key:
            tf, fields, lengths = _unpack(self.arrays["pairs"], len(self.vectors.fields))
            table = _factors(
                tf, fields, lengths, self.k1, self.b, statistics.n_documents, statistics.total_length
            )
            reference = self.arrays["reference"]
            ratio = float(np.max(table / reference)) if len(table) else 1.0
            factors = self._cache.factors = _Factors(key, table, ratio)
        return factors

    # --- explanation

    def explain(self, queries: Terms, rows: NDArray[np.integer]) -> list[Explanation]:
        """Why each row scores what it does for the first query: a part a term, heaviest first."""
        found = self._look_up(queries)
        statistics = self.statistics_ or self.statistics(queries)
        factors = self._factors(statistics)
        asked = []
        for entry, count in zip(*(part[: queries.indptr[1]].tolist() for part in (queries.indices, queries.frequencies))):
            idf = _idf(statistics, queries, entry)
            boost = self._boosts[queries.term_fields[entry]]
            if idf > 0 and boost > 0:
                asked.append((entry, boost * np.float32(count) * idf))
        asked.sort(key=lambda item: (-item[1], int(found.hashes[item[0]])))
        out = []
        for row in rows:
            score, parts = np.float32(0), []
            for entry, weight in asked:
                factor = self._factor(int(row), int(found.terms[entry]), factors)
                if factor is None:
                    continue
                value = weight * factor[0]
                score += value
                facts = self._facts(int(row), queries, entry, statistics, factor[1])
                label = queries.vocabulary[entry]
                if len(self.vectors.fields) > 1:
                    label = f"{facts['field']}:{label}"
                parts.append(Explanation(label, float(value), (), {**facts, "weight": float(weight)}))
            out.append(Explanation("bm25", float(score), tuple(parts), {"k1": self.k1, "b": self.b}))
        return out

    def _factor(self, row: int, term: int, factors: _Factors) -> tuple[np.float32, int] | None:
        """The factor and the position of a term's posting for a row."""
        low, high = self.arrays["indptr"][[term, term + 1]].tolist() if term >= 0 else (0, 0)
        position = low + int(np.searchsorted(self.arrays["rows"][low:high], row))
        if position == high or self.arrays["rows"][position] != row:
            return None
        return factors.table[self.arrays["codes"][position]], position

    def _facts(
        self, row: int, queries: Terms, entry: int, statistics: TermStatistics, position: int
    ) -> dict[str, float | int | str]:
        where = int(queries.term_fields[entry])
        tf, _, length = _unpack(
            self.arrays["pairs"][[self.arrays["codes"][position]]], len(self.vectors.fields)
        )
        n, df = int(statistics.n_documents[where]), int(statistics.frequencies[entry])
        return {
            "field": self.vectors.fields[where],
            "tf": int(tf[0]),
            "df": df,
            "n_documents": n,
            "idf": float(_idf(statistics, queries, entry)),
            "length": int(length[0]),
            "average_length": float(statistics.total_length[where] / n),
            "boost": float(self.weights.get(self.vectors.fields[where], 1.0)),
        }


def _idf(statistics: TermStatistics, queries: Terms, entry: int) -> np.float32:
    """The idf of an entry of the batch's vocabulary, 0 for a term that no row has."""
    n, df = int(statistics.n_documents[queries.term_fields[entry]]), int(statistics.frequencies[entry])
    return np.float32(math.log(1.0 + (n - df + 0.5) / (df + 0.5)) if df else 0.0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


def _check_weights(vectors: Terms, weights: Mapping[str, float]) -> None:
    for name in weights:
        if name not in vectors.fields:
            raise unknown_name("field in the weights of bm25", name, vectors.fields)


def _unpack(
    pairs: NDArray[np.int64], n_fields: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(C,) tf, field and length of each key (see ``pair_keys``)."""
    tf, fields = np.divmod(pairs >> 8, n_fields)
    return tf, fields, BYTE_LENGTHS[pairs & 255]


def _factors(
    tf: NDArray[np.int64],
    fields: NDArray[np.int64],
    lengths: NDArray[np.int64],
    k1: float,
    b: float,
    n_documents: NDArray[np.int64],
    total_length: NDArray[np.int64],
) -> NDArray[np.float32]:
    """(C,) tf / (tf + k1 (1 - b + b length / average length)), computed in float64."""
    average = total_length / np.maximum(n_documents, 1)
    average[average == 0] = 1.0  # a field without any token has no pair
    return (tf / (tf + k1 * (1 - b + b * lengths / average[fields]))).astype(np.float32)
