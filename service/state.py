"""The parts that the routes of one application share."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from service.answers import to_json
from service.errors import BodyTooLargeError
from service.live import LiveCollection
from service.metrics import Metrics
from service.pool import SearchPool
from service.settings import Settings


@dataclass(frozen=True)
class Service:
    """Settings, collection, worker threads and figures of one application."""

    settings: Settings
    live: LiveCollection
    pool: SearchPool
    metrics: Metrics


def service_of(request: Request) -> Service:
    """The parts of the application that a request came to."""
    service: Service = request.app.state.service
    return service


def json_response(value: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(
        value if isinstance(value, bytes) else to_json(value), status, media_type="application/json"
    )


async def read_body(request: Request) -> bytes:
    """The body of a request.

    Raises:
        BodyTooLargeError: it is longer than the server takes; the rest is not read.
    """
    limit = service_of(request).settings.max_body_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return b"".join(parts)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body is larger than this server takes ({limit} bytes); send fewer queries at once"
    )
