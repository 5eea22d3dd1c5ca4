"""A collection on disk and the snapshots readers take of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexing.commit import COMMIT_FILE, Commit, Representation, read_commit
from indexing.row_store import RowStore
from indexing.segment import Segment
from indexing.shared_state import named_states, open_state
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError
from retrieval.protocols import Encoder, Searcher
from retrieval.values import Document

if TYPE_CHECKING:
    from retrieval.query_bank import HubCorrection


@dataclass(frozen=True)
class Collection:
    """A folder that holds documents, their vectors and indexes, at its current commit.

    Example:
        >>> snapshot = Collection.open("my-collection").snapshot()          # doctest: +SKIP
        >>> hits = snapshot.searcher("hybrid").search(["query"], SearchRequest(k=10))  # doctest: +SKIP
        >>> snapshot.ids(hits.rows)                                          # doctest: +SKIP
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Collection:
        """The collection at a path.

        Raises:
            ConfigError: there is none.
            CorruptError, IncompatibleError: it cannot be read.
        """
        collection = cls(Path(path))
        read_commit(collection.path)
        return collection

    def commit(self) -> Commit:
        """What collection.json says now."""
        return read_commit(self.path)

    def version(self) -> tuple[int, int]:
        """Changes with every commit; costs one stat call."""
        facts = (self.path / COMMIT_FILE).stat()
        return facts.st_mtime_ns, facts.st_ino

    def snapshot(self) -> CollectionSnapshot:
        """The current commit, held open: later writes, deletes and compactions do not change it.

        Raises:
            CorruptError: a component is missing, cut short or changed.
        """
        for attempt in range(20):
            commit = read_commit(self.path)
            try:
                return CollectionSnapshot.open(self.path, commit)
            except (FileNotFoundError, CorruptError):
                # a writer swept what the commit names between its reading and the holding of its segments
                if attempt == 19 or read_commit(self.path).token == commit.token:
                    raise
        raise AssertionError("unreachable")


@dataclass(frozen=True, eq=False)
class CollectionSnapshot:
    """One commit of a collection.

    A row is a chunk; rows of all segments are numbered through, deleted ones included.
    """

    path: Path
    commit: Commit
    segments: tuple[Segment, ...]
    _filters: dict[str, Bitmap] = field(default_factory=dict, repr=False)
    _corrections: dict[str, HubCorrection] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, path: Path, commit: Commit) -> CollectionSnapshot:
        """Open every segment of a commit.

        Raises:
            CorruptError: a component is missing, cut short or changed.
        """
        segments: list[Segment] = []
        base = base_document = 0
        try:
            for entry in commit.segments:
                segments.append(Segment.open(path, commit, entry, base, base_document))
                base += entry.n_rows
                base_document += entry.n_documents
            for segment in segments:
                segment.touch()
            for name, generation in named_states(commit):
                open_state(path, name, generation)
        except BaseException:
            for segment in segments:
                segment.close()
            raise
        return cls(path, commit, tuple(segments))

    def close(self) -> None:
        """Let the segments be swept; happens by itself when the snapshot is gone."""
        for segment in self.segments:
            segment.close()

    @property
    def token(self) -> str:
        """Identity of the commit."""
        return self.commit.token

    @property
    def n_rows(self) -> int:
        """Rows, deleted ones included."""
        return sum(segment.n_rows for segment in self.segments)

    @property
    def n_documents(self) -> int:
        """Live documents."""
        return sum(
            entry.n_documents - (entry.deletes.documents if entry.deletes else 0)
            for entry in self.commit.segments
        )

    @property
    def representations(self) -> Mapping[str, Representation]:
        """Name -> how it was encoded and indexed."""
        return self.commit.representations

    @property
    def chunked(self) -> bool:
        """Whether a document may have several rows."""
        return self.commit.chunking != "none"

    def segment_of(self, row: int) -> Segment:
        """The segment a row lies in."""
        for segment in reversed(self.segments):
            if row >= segment.base:
                return segment
        raise IndexError(f"row {row} is not in a collection of {self.n_rows} rows")

    def document_numbers(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """The snapshot-wide number of each row's document; -1 for padding."""
        if not self.chunked:
            return np.asarray(rows, dtype=np.int64)
        numbers = np.full(rows.shape, -1, dtype=np.int64)
        for segment in self.segments:
            inside = (rows >= segment.base) & (rows < segment.base + segment.n_rows)
            numbers[inside] = segment.documents.of_rows(rows[inside] - segment.base) + segment.base_document
        return numbers

    def _locate(self, row: int) -> tuple[Segment, int, int]:
        segment = self.segment_of(row)
        local = row - segment.base
        return segment, local, int(segment.documents.of_rows(np.array([local]))[0])

    def ids(self, rows: NDArray[np.integer]) -> list[list[str]]:
        """The document ids of (Q, K) rows, padding left out."""
        return [[self._id(row) for row in line if row >= 0] for line in rows.tolist()]

    def _id(self, row: int) -> str:
        segment, _, document = self._locate(row)
        return segment.documents.ids[document]

    def documents(self, rows: NDArray[np.integer]) -> list[Document]:
        """The whole document of each row, with metadata."""
        return [self._document(*self._locate(int(row))) for row in rows]

    def passages(self, rows: NDArray[np.integer]) -> list[Document]:
        """The chunk each row is, as a document: title kept, text cut, with metadata."""
        passages = []
        for row in rows:
            segment, local, document = self._locate(int(row))
            passages.append(
                Document(
                    segment.documents.ids[document],
                    segment.documents.text_of_row(local, document),
                    segment.documents.titles[document],
                    segment.metadata[document],
                )
            )
        return passages

    def spans(self, rows: NDArray[np.integer]) -> list[tuple[int, int]]:
        """The character range of each row in its document's text."""
        spans = []
        for row in rows:
            segment, local, document = self._locate(int(row))
            stored = segment.documents.spans
            if stored is None:
                spans.append((0, len(segment.documents.texts[document])))
            else:
                spans.append((int(stored[local, 0]), int(stored[local, 1])))
        return spans

    def _document(self, segment: Segment, local: int, document: int) -> Document:
        documents = segment.documents
        return Document(
            documents.ids[document],
            documents.texts[document],
            documents.titles[document],
            segment.metadata[document],
        )

    def find(self, id_: str) -> tuple[Segment, int] | None:
        """The segment and document number of a live document, or None."""
        for segment in reversed(self.segments):
            document = segment.documents.find(id_)
            if document is not None:
                first, _ = segment.documents.rows_of(document)
                if segment.live is None or first in segment.live:
                    return segment, document
        return None

    def document(self, id_: str) -> Document | None:
        """A live document by id."""
        found = self.find(id_)
        return None if found is None else self._document(found[0], 0, found[1])

    def filter(self, expression: str) -> Bitmap:
        """The rows whose document satisfies a filter expression (retrieval/filters.py), as one bitmap.

        Raises:
            ConfigError: it does not parse, or names a field the collection does not have.
        """
        with self._lock:
            cached = self._filters.get(expression)
        if cached is not None:
            return cached
        from indexing.metadata import filter_rows
        from retrieval.filters import parse_filter

        parsed = parse_filter(expression)
        masks = [filter_rows(segment, parsed, self.commit.schema) for segment in self.segments]
        bitmap = Bitmap.from_mask(np.concatenate(masks) if masks else np.zeros(0, dtype=np.bool_))
        with self._lock:
            if len(self._filters) >= 64:  # bounded: one bit a row each
                self._filters.pop(next(iter(self._filters)))
            self._filters[expression] = bitmap
        return bitmap

    def searcher(
        self,
        using: str = "",
        rerank: str | None = None,
        encoders: Mapping[str, Encoder[Any, Any]] | None = None,
        *,
        query_bank: bool = False,
    ) -> Searcher:
        """A searcher over this snapshot.

        Args:
            using: a representation ("bm25", "dense"), one of its indexes ("dense-hnsw"), "hybrid" (all
                representations fused), or names joined by "+" ("bm25+dense"); "" means hybrid where there are
                several representations. A fusion method may stand before ("rrf:hybrid"); min-max otherwise.
            rerank: a reranker of ``retrieval.rerank.RERANKERS`` or a cross-encoder checkpoint.
            encoders: already open encoders by representation name; others are opened and checked here.
            query_bank: hold hubs back in every representation that has a query bank (``retrieval.query_bank``).

        Raises:
            ConfigError: there is nothing of that name, or no query bank where one is to be used.
            IncompatibleError: an encoder is not the one the collection or the query bank was encoded with.
        """
        from indexing.searching import make_searcher

        return make_searcher(self, using, rerank, encoders or {}, query_bank=query_bank)

    def hub_correction(self, name: str, make: Callable[[], HubCorrection]) -> HubCorrection:
        """What a query bank says about the rows as an index finds them, made once for this snapshot.

        Args:
            name: of the index, such as "dense-flat".
            make: called where there is none yet.
        """
        with self._lock:
            if name not in self._corrections:
                self._corrections[name] = make()
            return self._corrections[name]

    def encoder(self, name: str) -> Encoder[Any, Any]:
        """The encoder of a representation, opened once a process and checked against the collection."""
        from indexing.collection_encoder import collection_encoder

        return collection_encoder(self.path, self.representations, name)

    def store(self, name: str) -> RowStore:
        """The stored vectors of a representation, by row.

        Raises:
            ConfigError: there is none of that name.
        """
        require_representation(self.representations, name)
        return RowStore(self.segments, name)

    def info(self) -> dict[str, Any]:
        """Counts, representations, fields and bytes, as plain JSON values."""
        from indexing.info import describe

        return describe(self)


def require_representation(representations: Mapping[str, Representation], name: str) -> Representation:
    """The representation of a name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return representations[name]
    except KeyError:
        raise ConfigError(
            f"the collection has no representation {name!r}; it has: {', '.join(sorted(representations))}"
        ) from None
