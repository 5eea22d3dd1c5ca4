"""Queries of concurrent searches, encoded together without ever waiting for company."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from retrieval.protocols import Encoder, Fingerprints
from retrieval.values import Document


class Rows(Protocol):
    """A value whose rows can be sliced: Dense, Terms, Sparse, MultiVector."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


Q = TypeVar("Q", bound=Rows)
D = TypeVar("D")


class _Call(Generic[Q]):
    """The texts of one caller, and where its answer is put."""

    __slots__ = ("leads", "texts", "value", "wake")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.value: Q | None = None
        self.leads = False
        self.wake = threading.Event()


class BatchingEncoder(Generic[Q, D]):
    """An encoder whose concurrent ``encode_queries`` calls share batches.

    A call that finds the encoder idle runs at once. Calls that arrive meanwhile queue; when the running
    batch ends, the first of them encodes all of them together in its own thread. There is no timer and no
    thread of its own. A batch that fails is encoded again call by call, each in its caller's
    thread, so an error reaches only the caller whose text caused it.
    """

    def __init__(
        self,
        encoder: Encoder[Q, D],
        max_batch: int = 64,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: safe to call from several threads, as every encoder is.
            max_batch: texts in a joined batch; a single call may have more.
            observe: told the size of every batch.
        """
        self.encoder = encoder
        self.max_batch = max_batch
        self._observe = observe
        self._lock = threading.Lock()
        self._waiting: deque[_Call[Q]] = deque()
        self._busy = False

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
    def tally(self) -> Any:
        """The wrapped encoder's telemetry."""
        return self.encoder.tally  # type: ignore[attr-defined]

    def encode_documents(self, documents: Sequence[Document]) -> D:
        """Passed through: a server's documents come in batches already."""
        return self.encoder.encode_documents(documents)

    def encode_queries(self, texts: Sequence[str]) -> Q:
        """One value row a text, encoded alone or with whoever waits."""
        call: _Call[Q] = _Call(texts)
        with self._lock:
            if self._busy:
                self._waiting.append(call)
            else:
                self._busy = call.leads = True
        if not call.leads:
            call.wake.wait()
        if call.leads:
            return self._lead(call)
        if call.value is None:  # the joined batch failed
            return self._encode(texts)
        return call.value

    def _lead(self, call: _Call[Q]) -> Q:
        """Encode the caller's texts and those of everyone who fits, then hand the lead on."""
        followers = self._take(self.max_batch - len(call.texts))
        try:
            if followers:
                with suppress(Exception):  # not lost: whoever caused it meets it again alone
                    return self._together(call, followers)
            return self._encode(call.texts)
        finally:
            self._hand_on(followers)

    def _take(self, room: int) -> list[_Call[Q]]:
        """The longest run of waiting calls with at most ``room`` texts."""
        taken = []
        with self._lock:
            while self._waiting and len(self._waiting[0].texts) <= room:
                room -= len(self._waiting[0].texts)
                taken.append(self._waiting.popleft())
        return taken

    def _together(self, call: _Call[Q], followers: Sequence[_Call[Q]]) -> Q:
        value = self._encode([text for member in (call, *followers) for text in member.texts])
        start = len(call.texts)
        for member in followers:
            member.value = value[start : start + len(member.texts)]
            start += len(member.texts)
        own: Q = value[: len(call.texts)]
        return own

    def _hand_on(self, followers: Sequence[_Call[Q]]) -> None:
        """Wake the served, and the first of those who came meanwhile as the new leader."""
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            self._busy = following is not None
        if following is not None:
            following.leads = True
            following.wake.set()
        for member in followers:
            member.wake.set()

    def _encode(self, texts: Sequence[str]) -> Q:
        if self._observe is not None:
            self._observe(len(texts))
        return self.encoder.encode_queries(texts)
