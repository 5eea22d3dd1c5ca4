"""What happens around every request: an id, figures for /metrics, HEAD, and headers that browsers obey."""

from __future__ import annotations

import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics

_GOOD_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Envelope:
    """Gives each request an id (the client's own, if sensible), times it and counts it.

    HEAD is answered as GET is, without the body.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wrap one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope["tercet.request_id"] = _request_id(scope)
        method = scope["method"]
        inner = {**scope, "method": "GET"} if method == "HEAD" else scope
        status = 500  # what the outermost handler answers when nothing below it does

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).extend(
                    ((b"x-request-id", request_id.encode("ascii")), (b"x-content-type-options", b"nosniff"))
                )
            elif method == "HEAD" and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(inner, receive, named)
        finally:
            route = getattr(inner.get("route"), "path", "unmatched")
            label = method if method in _METHODS else "other"  # clients may invent methods, but no series
            self._metrics.request(route, label, status, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _GOOD_ID.fullmatch(value):
            given: str = value.decode("ascii")
            return given
    return secrets.token_hex(8)
