"""One Lucene segment in a folder, opened when it is first searched."""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexing.lucene.jvm import java, java_error, lucene, session
from indexing.lucene.transfer import bit_set, read_hits
from retrieval.errors import CorruptError
from retrieval.protocols import SearchRequest
from retrieval.values import Hits

FIELD = "contents"
"""The one field there is, named as Anserini names it."""

FACTS = "lucene.json"
"""The number of rows and the size of every file of Lucene's."""

_OF_STRINGS = "(Ljava/lang/String;Ljava/lang/String;)V"
_OF_READER = "(Lorg/apache/lucene/index/IndexReader;)V"


class _Opened(NamedTuple):
    """An open reader and its leaf, None where there are no rows."""

    reader: Any
    leaf: Any


@dataclass(frozen=True, eq=False)
class LuceneSegment:
    """A written segment; Java starts and the files are opened when it is first searched.

    Attributes:
        folder: where it lies.
        n: its rows.
    """

    folder: Path
    n: int

    @classmethod
    def load(cls, folder: Path, n: int) -> LuceneSegment:
        """Check the files of a segment over n rows.

        Raises:
            CorruptError: a file is missing or cut short, or belongs to other rows.
        """
        path = folder / FACTS
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            written, files = int(facts["n"]), dict(facts["files"])
        except FileNotFoundError as error:
            raise CorruptError(path, "the file is missing") from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CorruptError(path, f"no JSON object with n and files ({error})") from error
        if written != n:
            raise CorruptError(path, f"is about {written} rows, not {n}")
        for name, size in files.items():
            file = folder / name
            if not file.is_file():
                raise CorruptError(file, "the file is missing")
            if file.stat().st_size != size:
                raise CorruptError(file, f"has {file.stat().st_size} bytes, {size} were written")
        return cls(folder, n)

    @functools.cached_property
    def _opened(self) -> _Opened:
        try:
            reader = lucene("index.DirectoryReader").open(open_directory(self.folder))
        except java_error() as error:
            raise CorruptError(self.folder, f"Lucene cannot open it ({error})") from error
        weakref.finalize(self, _close, reader).atexit = False
        leaves = reader.leaves()
        if leaves.size() > 1 or reader.maxDoc() != self.n:
            raise CorruptError(
                self.folder, f"{leaves.size()} segments of {reader.maxDoc()} rows, not one of {self.n}"
            )
        return _Opened(reader, leaves.get(0) if leaves.size() else None)

    @property
    def reader(self) -> Any:
        """The open ``IndexReader``."""
        return self._opened.reader

    @property
    def terms(self) -> Any:
        """The leaf's ``Terms``; None where no row has a term."""
        leaf = self._opened.leaf
        return None if leaf is None else leaf.reader().terms(FIELD)

    def search(
        self, searcher: Any, n_queries: int, query_of: Callable[[int], Any], request: SearchRequest
    ) -> Hits:
        """The best rows of each query, ties by ascending row.

        Args:
            searcher: whose similarity and statistics score; it may belong to another reader, as long as the queries'
                terms come with their states in this one.
            n_queries: Q.
            query_of: the Lucene ``Query`` of each number below Q; None for one that has no terms.
            request: its filter becomes Lucene's ``Bits``, which the scorer asks about each row that it is about to
                score, as it does about deleted documents. So filters are exact and nothing is fetched in vain.
        """
        hits, k = Hits.none(n_queries, request.k), min(request.k, self.n)
        if self.n == 0:
            return hits
        with session():
            bits = None if request.allowed is None else bit_set(request.allowed)
        for number in range(n_queries):
            with session():
                query = query_of(number)
                rows, scores = ((), ()) if query is None else self._best(searcher, query, k, bits)
            hits.rows[number, : len(rows)], hits.scores[number, : len(rows)] = rows, scores
        return hits

    def _best(
        self, searcher: Any, query: Any, k: int, bits: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        collector = lucene("search.TopScoreDocCollector").create(k, k)
        weight = searcher.createWeight(query, lucene("search.ScoreMode").TOP_SCORES, 1.0)
        scorer = weight.bulkScorer(self._opened.leaf)
        if scorer is not None:
            scorer.score(collector.getLeafCollector(self._opened.leaf), bits)
        return read_hits(collector.topDocs())

    def explain(self, searcher: Any, query: Any, row: int) -> Any:
        """Lucene's own ``Explanation`` of a row's score, arguments as in ``search``."""
        weight = searcher.createWeight(query, lucene("search.ScoreMode").COMPLETE, 1.0)
        return weight.explain(self._opened.leaf, row)


def new_searcher(reader: Any, similarity: Any) -> Any:
    """An ``IndexSearcher`` that scores by a similarity."""
    searcher = lucene("search.IndexSearcher")(reader, signature=_OF_READER)
    searcher.setSimilarity(similarity)
    return searcher


@functools.lru_cache(maxsize=1 << 16)
def term_query(token: str) -> Any:
    """The rows that have a token."""
    return lucene("search.TermQuery")(new_term(token))


def new_term(token: str) -> Any:
    """A token of the field."""
    return lucene("index.Term")(FIELD, token, signature=_OF_STRINGS)


def any_of(terms: Iterable[tuple[Any, float]]) -> Any:
    """The query that adds up terms (Lucene queries) times their boosts."""
    query = lucene("search.BooleanQuery$Builder")()
    should, boosted = lucene("search.BooleanClause$Occur").SHOULD, lucene("search.BoostQuery")
    for term, boost in terms:
        query.add(boosted(term, boost), should)
    return query.build()


def _close(reader: Any) -> None:
    with session():
        reader.close()


def open_directory(folder: Path) -> Any:
    """Without a lock file: the collection's own lock admits one writer."""
    path = java("java.nio.file.Paths").get(str(folder))
    return lucene("store.FSDirectory").open(path, lucene("store.NoLockFactory").INSTANCE)
