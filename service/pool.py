"""The bounded queue before the threads that search, and the joining of what waits there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from service.errors import ClientGoneError, QueueFullError

T = TypeVar("T")
R = TypeVar("R")
Gone = Callable[[], Awaitable[bool]]

_SWEEP_S = 0.25


@dataclass(eq=False)
class _Call:
    """One caller's item, and where its result goes.

    Attributes:
        work: what to do with items of this key, several at once.
        size: how much of a joined batch the item takes up.
        key: calls of equal keys may be joined; None joins with nothing.
    """

    work: Callable[[Sequence[Any]], Sequence[Any]]
    item: Any
    size: int
    key: Hashable
    gone: Gone | None
    result: asyncio.Future[Any]


class SearchPool:
    """Runs blocking work on a few threads, in order of arrival; used from one event loop.

    A call that finds a free worker runs at once and alone. Calls that have to wait are joined: a worker
    that gets free takes the first and all that have its key. There is no timer. When a joined batch fails, its
    calls run again one by one, so that an error reaches only the caller who caused it. Cancelling a call harms
    no other.
    """

    def __init__(self, workers: int, max_queue: int, max_batch: int = 64) -> None:
        """Start no thread yet.

        Args:
            workers: batches that run at once.
            max_queue: calls that may wait beyond those.
            max_batch: the most that the sizes of joined calls add up to.
        """
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="tercet-search")
        self._free = workers
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._waiting: deque[_Call] = deque()
        self._sweeping: asyncio.Task[None] | None = None
        self.workers = workers

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return sum(not call.result.done() for call in self._waiting)

    @property
    def running(self) -> int:
        """Batches on threads."""
        return self.workers - self._free

    async def run(self, work: Callable[[], R], gone: Gone | None = None) -> R:
        """Call ``work`` on a thread and return what it returns; never joined.

        Args:
            work: blocking; its exceptions pass through.
            gone: asked, while the call waits, whether nobody wants the answer any more.

        Raises:
            QueueFullError: ``max_queue`` calls wait already.
            ClientGoneError: ``gone`` said so.
        """
        result: R = await self._admit(lambda items: [work()], None, 1, None, gone)
        return result

    async def join(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        item: T,
        key: Hashable,
        size: int = 1,
        gone: Gone | None = None,
    ) -> R:
        """The result of ``work`` for an item, which may be worked on together with others of its key.

        Args:
            work: blocking; one result an item, the same however items are joined.
            key: equal keys promise that ``work`` is the same.
            size: what the item counts towards ``max_batch``.
            gone: as for ``run``.

        Raises:
            QueueFullError: ``max_queue`` calls wait already.
            ClientGoneError: ``gone`` said so.
        """
        result: R = await self._admit(work, item, size, key, gone)
        return result

    async def _admit(
        self,
        work: Callable[[Sequence[Any]], Sequence[Any]],
        item: Any,
        size: int,
        key: Hashable,
        gone: Gone | None,
    ) -> Any:
        loop = asyncio.get_running_loop()
        call = _Call(work, item, size, key, gone, loop.create_future())
        if self._free:
            self._free -= 1
            self._start([call], loop)
        elif self.waiting >= self._max_queue:
            raise QueueFullError(f"{self._max_queue} searches are waiting already; try again in a moment")
        else:
            self._waiting.append(call)
            if gone is not None and self._sweeping is None:
                self._sweeping = loop.create_task(self._sweep())
        return await call.result

    def _start(self, batch: list[_Call], loop: asyncio.AbstractEventLoop) -> None:
        running = self._executor.submit(batch[0].work, [call.item for call in batch])
        running.add_done_callback(lambda done: _call(loop, lambda: self._finish(batch, done, loop)))

    def _finish(
        self, batch: list[_Call], done: Future[Sequence[Any]], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Give every caller its result, and the worker its next batch."""
        error = done.exception()
        if error is not None and len(batch) > 1:
            for call in batch:
                call.key = None
            self._waiting.extendleft(reversed(batch))
        else:
            results = done.result() if error is None else ()
            for position, call in enumerate(batch):
                if call.result.done():  # cancelled, or gone
                    continue
                if error is None:
                    call.result.set_result(results[position])
                else:
                    call.result.set_exception(error)
        following = self._next()
        if following:
            self._start(following, loop)
        else:
            self._free += 1

    def _next(self) -> list[_Call]:
        """Take the first waiting call and those that may join it."""
        while self._waiting and self._waiting[0].result.done():
            self._waiting.popleft()
        if not self._waiting:
            return []
        first = self._waiting.popleft()
        batch, room = [first], self._max_batch - first.size
        if first.key is not None and self._waiting:
            left: deque[_Call] = deque()
            for call in self._waiting:
                if call.key == first.key and call.size <= room and not call.result.done():
                    batch.append(call)
                    room -= call.size
                else:
                    left.append(call)
            self._waiting = left
        return batch

    async def _sweep(self) -> None:
        """Drop waiting calls whose client hung up, as long as any wait."""
        while self._waiting:
            await asyncio.sleep(_SWEEP_S)
            for call in list(self._waiting):
                if call.gone is not None and await call.gone() and not call.result.done():
                    call.result.set_exception(ClientGoneError("the client went away"))
        self._sweeping = None

    def shutdown(self) -> None:
        """Wait for running calls and end the threads."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._executor.shutdown(wait=True)


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(action)
