"""Queries of concurrent searches, encoded together without ever waiting for company."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from retrieval.encoders import query_value
from retrieval.protocols import Encoder, Fingerprints
from retrieval.values import Document


@functools.cache
def model_thread() -> ThreadPoolExecutor:
    """The one thread of this process on which encoders run.

    GNU OpenMP keeps a team of threads for every thread that calls it, and when all teams together are larger than
    the machine, it stops spinning at barriers: one query then takes twice as long, though nothing else runs.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="tercet-model")


class Rows(Protocol):
    """A value whose rows can be sliced: Dense, Terms, Sparse, MultiVector."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


Q = TypeVar("Q", bound=Rows)
D = TypeVar("D")


class _Call(Generic[Q]):
    """The texts of one caller and what became of them.

    Attributes:
        value: their rows, once a joined batch gave them.
        alone: whether a joined batch failed.
    """

    __slots__ = ("alone", "texts", "value")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.value: Q | None = None
        self.alone = False


class BatchingEncoder(Generic[Q, D]):
    """An encoder whose concurrent ``encode_queries`` calls share batches, on the one model thread.

    A call that finds the thread idle runs at once. Calls that arrive meanwhile queue; when the running batch
    ends, as many as fit are encoded together. There is no timer. When a joined batch fails, its calls are encoded
    again one by one, so an error reaches only the caller whose text caused it.
    """

    def __init__(
        self,
        encoder: Encoder[Q, D],
        max_batch: int = 64,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: what does the work.
            max_batch: texts in a joined batch; a single call may have more.
            observe: told the size of every batch.
        """
        self.encoder = encoder
        self.max_batch = max_batch
        self._observe = observe
        self._lock = threading.Lock()
        self._waiting: deque[_Call[Q]] = deque()

    @property
    def spec(self) -> Mapping[str, Any]:
        """The wrapped encoder's."""
        return self.encoder.spec

    @property
    def fingerprints(self) -> Fingerprints:
        """The wrapped encoder's."""
        return self.encoder.fingerprints

    @property
    def value(self) -> type:
        """What the wrapped encoder makes."""
        return self.encoder.value  # type: ignore[attr-defined]

    @property
    def query_value(self) -> type:
        """What the wrapped encoder makes of queries."""
        return query_value(self.encoder)

    @property
    def tally(self) -> Any:
        """The wrapped encoder's telemetry."""
        return self.encoder.tally  # type: ignore[attr-defined]

    def encode_documents(self, documents: Sequence[Document]) -> D:
        """Never joined: documents come in batches already."""
        return model_thread().submit(self.encoder.encode_documents, documents).result()

    def encode_queries(self, texts: Sequence[str]) -> Q:
        """One value row a text, encoded alone or with whoever waits."""
        call: _Call[Q] = _Call(texts)
        with self._lock:  # both queues in one order: whose turn it is finds its call served or first in line
            self._waiting.append(call)
            turn = model_thread().submit(self._serve, call)
        return turn.result()

    def _serve(self, call: _Call[Q]) -> Q:
        """A call's turn on the model thread; an earlier turn may have served it already."""
        if call.value is None and not call.alone:
            batch = self._take()
            if len(batch) > 1:
                self._together(batch)
        return self._encode(call.texts) if call.value is None else call.value

    def _take(self) -> list[_Call[Q]]:
        """The first waiting call and those behind it that fit."""
        with self._lock:
            taken = [self._waiting.popleft()]
            room = self.max_batch - len(taken[0].texts)
            while self._waiting and len(self._waiting[0].texts) <= room:
                room -= len(self._waiting[0].texts)
                taken.append(self._waiting.popleft())
        return taken

    def _together(self, batch: Sequence[_Call[Q]]) -> None:
        for call in batch:
            call.alone = True
        with suppress(Exception):  # not lost: whoever caused it meets it again alone
            value = self._encode([text for call in batch for text in call.texts])
            start = 0
            for call in batch:
                call.value = value[start : start + len(call.texts)]
                start += len(call.texts)

    def _encode(self, texts: Sequence[str]) -> Q:
        if self._observe is not None:
            self._observe(len(texts))
        return self.encoder.encode_queries(texts)
