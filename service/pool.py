"""The bounded queue before the threads that search."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.errors import ClientGoneError, QueueFullError

T = TypeVar("T")


class SearchPool:
    """Runs blocking work on a few threads, in order of arrival; used from one event loop.

    Waiting happens on the event loop rather than in the executor, so that a client that hung up
    while it waited costs no search and a cancelled one frees its place at once.
    """

    def __init__(self, workers: int, max_queue: int) -> None:
        """Start no thread yet.

        Args:
            workers: calls that run at once.
            max_queue: calls that may wait beyond those.
        """
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="tercet-search")
        self._free = workers
        self._max_queue = max_queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.workers = workers

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return sum(not turn.done() for turn in self._waiting)

    @property
    def running(self) -> int:
        """Calls on threads."""
        return self.workers - self._free

    async def run(self, work: Callable[[], T], gone: Callable[[], Awaitable[bool]] | None = None) -> T:
        """Call ``work`` on a thread and return what it returns.

        Args:
            work: blocking; its exceptions pass through.
            gone: asked, when the call had to wait, whether anyone still wants the answer.

        Raises:
            QueueFullError: ``max_queue`` calls wait already.
            ClientGoneError: ``gone`` said so.
        """
        if self._free and not self._waiting:
            self._free -= 1
        else:
            await self._turn()
            if gone is not None and await self._asked(gone):
                self._release()
                raise ClientGoneError("the client went away")
        running = self._executor.submit(work)
        try:
            result = await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            # The thread goes on without its caller; its worker is free when it ends.
            loop = asyncio.get_running_loop()
            running.add_done_callback(lambda _: _call(loop, self._release))
            raise
        except BaseException:
            self._release()
            raise
        self._release()
        return result

    async def _asked(self, gone: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await gone()
        except asyncio.CancelledError:
            self._release()
            raise

    async def _turn(self) -> None:
        """Wait for a worker; the one who releases it hands it over."""
        if self.waiting >= self._max_queue:
            raise QueueFullError(f"{self._max_queue} searches are waiting already; try again in a moment")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # handed over and cancelled in one breath
                self._release()
            raise

    def _release(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def shutdown(self) -> None:
        """Wait for running calls and end the threads."""
        self._executor.shutdown(wait=True)


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(action)
