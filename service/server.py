"""One server process: a socket, uvicorn, and a clean end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from retrieval.errors import ConfigError
from service.app import create_app, open_collection
from service.settings import Settings


def serve(settings: Settings, announce: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGINT or SIGTERM, from the main thread; running requests get ``drain`` seconds to finish.

    Args:
        settings: what to serve and where.
        announce: told the address once searches are answered there.

    Raises:
        TercetError: the collection or an encoder cannot be opened, or the address cannot be listened on.
    """
    open_collection(settings.collection)  # a wrong path is an error before anything starts
    failures: list[Exception] = []

    def loaded(failure: Exception | None) -> None:
        if failure is not None:
            failures.append(failure)
            server.should_exit = True
        elif not server.should_exit:
            announce(address(listening))

    listening = listen(settings.host, settings.port)
    config = uvicorn.Config(
        create_app(settings, on_loaded=loaded),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(settings.drain)),
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal that ended it once more, for its parent's sake; being told to end is no error.
    kept = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        listening.close()
    if failures:
        raise failures[0]


def _ignore(number: int, frame: FrameType | None) -> None:
    """Take note of nothing."""


def address(listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket whose connections send at once.

    asyncio turns Nagle's algorithm off only for sockets that name their protocol; with it on, an answer's body
    waits some 40 ms for the client to acknowledge its head.

    Raises:
        ConfigError: the address is taken, foreign or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error}; choose another with --port"
        ) from error
    return listening
