"""The collection that a server answers from: warmed before it is ready, reloaded when it is written to."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import Analyzer
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, TercetError
from retrieval.protocols import Encoder, Reranker, Searcher, SearchRequest, Snapshot
from retrieval.values import Document, Terms
from service.batching import BatchingEncoder
from service.errors import InvalidError, NotReadyError, invalid
from service.metrics import Metrics
from service.settings import Settings

log = logging.getLogger(__name__)
_SEARCHERS_KEPT = 64


class ServedSnapshot(Snapshot, Protocol):
    """What the service needs of a commit; ``indexing.collection.CollectionSnapshot`` has it."""

    @property
    def n_documents(self) -> int:
        """Live documents."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows, deleted ones included."""
        ...

    @property
    def representations(self) -> Mapping[str, Any]:
        """Name -> how it was encoded and indexed."""
        ...

    @property
    def commit(self) -> Any:
        """What collection.json said; its ``schema`` is read."""
        ...

    @property
    def segments(self) -> Sequence[Any]:
        """The open segments; their ``metadata``, ``live`` and ``documents`` are read."""
        ...

    def encoder(self, name: str) -> Encoder[Any, Any]:
        """The encoder of a representation."""
        ...

    def searcher(
        self,
        using: str = ...,
        rerank: str | None = ...,
        encoders: Mapping[str, Encoder[Any, Any]] | None = ...,
        *,
        query_bank: bool = ...,
    ) -> Searcher:
        """A searcher over this commit."""
        ...

    def filter(self, expression: str) -> Bitmap:
        """The rows that satisfy a filter expression."""
        ...

    def document(self, id_: str) -> Document | None:
        """A live document by id."""
        ...

    def spans(self, rows: NDArray[np.integer]) -> list[tuple[int, int]]:
        """The character range of each row in its document's text."""
        ...


class ServedCollection(Protocol):
    """What the service needs of a collection; ``indexing.collection.Collection`` has it."""

    def version(self) -> object:
        """Differs after every commit; cheap."""
        ...

    def snapshot(self) -> ServedSnapshot:
        """The current commit."""
        ...


Opener = Callable[[Path], ServedCollection]


class Served:
    """One snapshot with its open encoders and the searchers made so far."""

    def __init__(
        self,
        snapshot: ServedSnapshot,
        encoders: Mapping[str, Encoder[Any, Any]],
        rerankers: Mapping[str, Reranker],
        using: str | None,
    ) -> None:
        self.snapshot = snapshot
        self.encoders = encoders
        self.rerankers = rerankers
        self._searchers: dict[tuple[str, str | None, bool], Searcher] = {}
        self.info: dict[str, Any] | None = None  # what /v1/info answers, made on first request
        self.names = list(snapshot.representations)
        if len(self.names) > 1:
            self.names.append("hybrid")
        self.using = using or self.names[-1]

    def searcher(self, using: str | None, rerank: str | None, *, query_bank: bool = False) -> Searcher:
        """The searcher a request names.

        Raises:
            InvalidError: no such representation or reranker, or no query bank where one is to be used.
        """
        key = (using or self.using, rerank, query_bank)
        found = self._searchers.get(key)
        if found is not None:
            return found
        if rerank is not None and rerank not in self.rerankers:
            offered = ", ".join(self.rerankers) or "none (start the server with --rerank NAME)"
            invalid("rerank", f"this server does not offer {rerank!r}; it offers: {offered}")
        try:
            found = self.snapshot.searcher(key[0], encoders=self.encoders)
        except ConfigError as error:
            invalid("using", str(error))
        if query_bank:
            try:
                found = self.snapshot.searcher(key[0], encoders=self.encoders, query_bank=True)
            except ConfigError as error:
                invalid("query_bank", str(error))
        if rerank is not None:
            from retrieval.rerank import Reranked

            found = Reranked(found, self.rerankers[rerank], self.snapshot)
        if len(self._searchers) < _SEARCHERS_KEPT:
            self._searchers[key] = found
        return found

    def allowed(self, expression: str | None) -> Bitmap | None:
        """The rows a filter lets through; None lets all through.

        Raises:
            InvalidError: it does not parse or names an unknown field.
        """
        if expression is None or not expression.strip():
            return None
        try:
            return self.snapshot.filter(expression)
        except ConfigError as error:
            invalid("filter", str(error))

    def analyzer(self) -> Analyzer:
        """Cuts texts into the terms that are highlighted: that of the first analysed representation."""
        for encoder in self.encoders.values():
            analyzer = getattr(encoder, "analyzer", None)
            if isinstance(analyzer, Analyzer):
                return analyzer
        return Analyzer()

    def warm(self) -> None:
        """Search once through everything, so that no request pays for compiling or reading for the first time.

        Raises:
            ConfigError: the default way of searching does not exist.
        """
        ways: list[tuple[str | None, str | None, bool]] = [
            (name, None, False) for name in dict.fromkeys((*self.names, self.using))
        ]
        ways += [(None, name, False) for name in self.rerankers]
        ways += [(name, None, True) for name, one in self.snapshot.representations.items() if _banked(one)]
        for using, rerank, query_bank in ways:
            try:
                searcher = self.searcher(using, rerank, query_bank=query_bank)
            except InvalidError as error:
                raise ConfigError(error.message) from error
            for texts in (["warm up"], ["warm up", "the second query of a batch"]):
                searcher.search(texts, SearchRequest(k=10))


def _banked(representation: Any) -> bool:
    return getattr(representation, "query_bank", None) is not None


class LiveCollection:
    """Keeps the newest commit open; requests hold the one they began with."""

    def __init__(self, settings: Settings, metrics: Metrics, opener: Opener) -> None:
        """Open nothing yet: ``load`` does, on whatever thread it is called."""
        self._settings = settings
        self._metrics = metrics
        self._opener = opener
        self._collection: ServedCollection | None = None
        self._served: Served | None = None
        self._rerankers: dict[str, Reranker] = {}
        self._version: object = None
        self._unreadable: tuple[object, ...] = ()
        self._next_look = 0.0
        self._looking = threading.Lock()
        self.failure: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether searches can be answered."""
        return self._served is not None

    @property
    def n_documents(self) -> int:
        """Live documents of the newest commit, 0 before it is loaded."""
        return self._served.snapshot.n_documents if self._served is not None else 0

    def load(self) -> None:
        """Open the collection and its encoders and search through each once.

        Raises:
            TercetError: the collection cannot be served; kept in ``failure`` too.
        """
        try:
            self._collection = self._opener(self._settings.collection)
            self._version = self._collection.version()
            self._rerankers = {name: _open_reranker(name) for name in self._settings.rerank}
            served = self._open(self._collection)
            served.warm()
        except Exception as error:
            self.failure = error
            raise
        self._served = served

    def current(self) -> Served:
        """The newest commit; looks for another at most every ``reload`` seconds.

        Raises:
            NotReadyError: nothing is loaded yet.
        """
        served = self._served
        if served is None:
            raise NotReadyError("the collection is still being loaded; try again in a moment")
        now = time.monotonic()
        if now >= self._next_look and self._looking.acquire(blocking=False):
            try:
                self._next_look = now + self._settings.reload
                self._look()
            finally:
                self._looking.release()
        return self._served or served

    def _look(self) -> None:
        """Open another commit if there is one; a commit that cannot be read leaves the old one in service."""
        if self._collection is None:
            return
        version: object = None
        try:
            version = self._collection.version()
            if version != self._version:
                self._served = self._open(self._collection)
                self._version = version
            self._unreadable = ()
        except (TercetError, OSError) as error:
            self._note_unreadable(version, error)

    def _note_unreadable(self, version: object, error: Exception) -> None:
        """Log a commit that cannot be opened, once; it is tried again, since the cause may pass."""
        if self._unreadable != (version,):
            self._unreadable = (version,)
            log.error(
                "the newest commit of %s cannot be opened; the one before stays in service: %s",
                self._settings.collection,
                error,
            )

    def _open(self, collection: ServedCollection) -> Served:
        snapshot = collection.snapshot()
        encoders = {name: self._encoder(snapshot, name) for name in snapshot.representations}
        return Served(snapshot, encoders, self._rerankers, self._settings.using)

    def _encoder(self, snapshot: ServedSnapshot, name: str) -> Encoder[Any, Any]:
        """A representation's encoder, batching unless its work is trifling; kept over reloads."""
        encoder = snapshot.encoder(name)
        if getattr(encoder, "value", None) is Terms:
            return encoder
        known = self._served.encoders.get(name) if self._served is not None else None
        if isinstance(known, BatchingEncoder) and known.encoder is encoder:
            return known
        return BatchingEncoder(
            encoder, self._settings.max_batch, lambda size: self._metrics.batch(name, size)
        )


def _open_reranker(name: str) -> Reranker:
    from retrieval.rerank import open_reranker

    try:
        return open_reranker(name)
    except ConfigError as error:
        raise ConfigError(f"--rerank or TERCET_RERANK: {error}") from error
