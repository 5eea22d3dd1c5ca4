"""Which documents of a corpus queries are made of: all of them, or so many by chance."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from indexing.corpora.corpus import Corpus, Record
from indexing.documents import id_hash
from indexing.progress import Progress
from indexing.seen_ids import SeenIds
from retrieval.errors import ConfigError, FormatError
from retrieval.values import Document
from training.generation.generator import seed_of

_ALL = (1 << 63) - 1
_CHOICE = -1  # in the place of a query's number


@dataclass(frozen=True)
class Selection:
    """The documents of a corpus that hold something and were chosen; can be read any number of times.

    Attributes:
        corpus: where they are read.
        n_documents: of the corpus.
        n: of these.
        seed: of the choice.
        threshold: a document is chosen where the number that the seed and its id give is no greater.
    """

    corpus: Corpus
    n_documents: int
    n: int
    seed: int
    threshold: int

    def __iter__(self) -> Iterator[Document]:
        for _, document in self.with_rows():
            yield document

    def with_rows(self) -> Iterator[tuple[int, Document]]:
        """Each with its place in the corpus."""
        for row, record in enumerate(self.corpus.read()):
            lot = _lot(record, self.seed)
            if lot is not None and lot <= self.threshold:
                yield row, record.document


@dataclass(frozen=True)
class AllDocuments:
    """Every document of a corpus; can be read any number of times."""

    corpus: Corpus

    def __iter__(self) -> Iterator[Document]:
        for record in self.corpus.read():
            yield record.document


def select(corpus: Corpus, limit: int | None, seed: int, progress: Progress) -> Selection:
    """Read a corpus once, check its ids, and choose documents by lot.

    A greater limit chooses the same documents and some more.

    Args:
        corpus: of files; a stream cannot be read again.
        limit: documents to choose; None takes all that hold something.
        seed: of the choice.
        progress: hears how many documents are read.

    Raises:
        ConfigError: the corpus is a stream.
        FormatError: an id occurs twice, or has a tab or line end, which judgements in TSV cannot hold.
    """
    if not corpus.resumable:
        raise ConfigError(f"{corpus.source} is a stream and can be read only once; write it to a file")
    progress.start("read corpus", None, "documents")
    n_documents = 0

    def lots() -> Iterator[int]:
        nonlocal n_documents
        seen = SeenIds()
        for record in corpus.read():
            _check_id(record, seen, n_documents)
            n_documents += 1
            progress.advance(1)
            lot = _lot(record, seed)
            if lot is not None:
                yield lot

    if limit is None:
        n, threshold = sum(1 for _ in lots()), _ALL
    else:
        smallest = heapq.nsmallest(limit, lots())
        n, threshold = len(smallest), max(smallest, default=0)
    return Selection(corpus, n_documents, n, seed, threshold)


def _lot(record: Record, seed: int) -> int | None:
    """What the choice goes by; None of a document that holds nothing."""
    document = record.document
    return seed_of(seed, document.id, _CHOICE) if document.contents().strip() else None


def _check_id(record: Record, seen: SeenIds, number: int) -> None:
    id_ = record.document.id
    if not {"\t", "\n", "\r"}.isdisjoint(id_):
        raise FormatError(
            f"the id {id_!r} has a tab or line end, which judgements cannot hold; give it another",
            record.file,
            record.line,
        )
    hash_ = id_hash(id_)
    if seen.get(hash_) is not None:
        raise FormatError(f"the id {id_!r} stands there already; ids are unique", record.file, record.line)
    seen.note(hash_, number)
