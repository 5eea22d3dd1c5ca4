"""The application: routes, middleware and the life of the collection behind them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from service import errors, routes_operations, routes_search
from service.live import LiveCollection, Opener, ServedCollection
from service.metrics import Metrics
from service.middleware import Envelope
from service.pool import SearchPool
from service.routes_page import page_router
from service.settings import Settings
from service.state import Service

log = logging.getLogger(__name__)


def open_collection(path: Path) -> ServedCollection:
    """The collection on disk."""
    from indexing.collection import Collection

    return Collection.open(path)


def create_app(
    settings: Settings,
    opener: Opener = open_collection,
    on_loaded: Callable[[Exception | None], None] | None = None,
) -> FastAPI:
    """The HTTP API and the search page over one collection.

    The collection is opened and warmed in the background after start-up; until then ``/readyz`` and searches
    answer 503. The application holds state of its own, so several may live in one process.

    Args:
        settings: what to serve and how.
        opener: makes the collection from its path.
        on_loaded: told once the collection is loaded (None), or why it cannot be; without it a failure is logged.
    """
    metrics = Metrics()
    live = LiveCollection(settings, metrics, opener)
    pool = SearchPool(settings.workers, settings.max_queue, settings.max_batch)
    metrics.gauge("tercet_queue_depth", "Searches waiting for a worker.", lambda: pool.waiting)
    metrics.gauge("tercet_searches_running", "Searches on a worker.", lambda: pool.running)
    metrics.gauge("tercet_documents", "Live documents of the collection.", lambda: live.n_documents)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(asyncio.to_thread(live.load))
        loading.add_done_callback(lambda task: _report(task, on_loaded))
        yield
        await asyncio.gather(loading, return_exceptions=True)
        pool.shutdown()

    app = FastAPI(
        title="Tercet", summary="Search a collection.", lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = Service(settings, live, pool, metrics)
    app.include_router(routes_search.router, tags=["search"])
    app.include_router(routes_operations.router, tags=["operations"])
    app.include_router(page_router())
    errors.install(app)
    app.add_middleware(Envelope, metrics=metrics)
    return app


def _report(loading: asyncio.Task[None], on_loaded: Callable[[Exception | None], None] | None) -> None:
    if loading.cancelled():
        return
    failure = loading.exception()
    if failure is not None and not isinstance(failure, Exception):
        return  # the interpreter is ending
    if on_loaded is not None:
        on_loaded(failure)
    elif failure is not None:
        log.error("the collection cannot be served: %s", failure)
