"""Every error that leaves the server, in one table and one shape."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from retrieval.errors import ConfigError, CorruptError, IncompatibleError, MissingExtraError
from service.validation import describe_mistakes

log = logging.getLogger(__name__)


class ServiceError(Exception):
    """An answer other than success that the server itself decides on."""

    def __init__(self, message: str, field: str | None = None) -> None:
        self.message = message
        self.field = field
        super().__init__(message)


class InvalidError(ServiceError):
    """A field of the request that cannot be used as it stands."""


class UnknownDocumentError(ServiceError):
    """No document has the id."""


class BodyTooLargeError(ServiceError):
    """The request body is over the limit."""


class QueueFullError(ServiceError):
    """As many searches wait as may."""


class NotReadyError(ServiceError):
    """The collection or its encoders are still being loaded."""


class ClientGoneError(ServiceError):
    """The client hung up while its search waited; nobody reads this answer."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How an exception is answered.

    Attributes:
        status: the HTTP status.
        type: the ``error.type`` that programs match on.
        message: what people read; None takes the exception's own words.
        retry_after: seconds a client should wait, sent as Retry-After.
    """

    status: int
    type: str
    message: str | None = None
    retry_after: int | None = None


_INTERNAL = "something went wrong on the server; its log has the details under this request id"

RULES: dict[type[Exception], Rule] = {
    ValidationError: Rule(422, "invalid_request"),
    InvalidError: Rule(422, "invalid_request"),
    ConfigError: Rule(422, "invalid_request"),
    UnknownDocumentError: Rule(404, "unknown_document"),
    BodyTooLargeError: Rule(413, "body_too_large"),
    QueueFullError: Rule(503, "overloaded", retry_after=1),
    NotReadyError: Rule(503, "not_ready", retry_after=1),
    ClientGoneError: Rule(499, "client_gone"),
    ClientDisconnect: Rule(499, "client_gone", "the client went away while it sent its request"),
    MissingExtraError: Rule(500, "internal", _INTERNAL),
    IncompatibleError: Rule(500, "internal", _INTERNAL),
    CorruptError: Rule(500, "internal", _INTERNAL),
    Exception: Rule(500, "internal", _INTERNAL),
}
_HTTP_TYPES = {404: "not_found", 405: "method_not_allowed"}


def invalid(field: str, message: str) -> NoReturn:
    """Refuse a field of the request."""
    raise InvalidError(message, field)


def install(app: FastAPI) -> None:
    """Answer every exception of the table, and every HTTP error of the framework, in the one shape."""
    for kind, rule in RULES.items():
        app.add_exception_handler(kind, _handler(rule))
    app.add_exception_handler(HTTPException, _http_error)


def _handler(rule: Rule) -> Callable[[Request, Exception], Any]:
    async def answer(request: Request, error: Exception) -> Response:
        if rule.status >= 500 and rule.retry_after is None:
            log.error("request %s failed", _request_id(request), exc_info=error)
        elif rule.status == 499:
            log.debug("request %s: the client went away", _request_id(request))
        message, field = _describe(error)
        headers = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
        if rule is RULES[Exception]:  # answered outside the middleware that adds it otherwise
            headers["X-Request-ID"] = _request_id(request)
        return _response(request, rule.status, rule.type, rule.message or message, field, headers)

    return answer


async def _http_error(request: Request, error: Exception) -> Response:
    """404 of an unknown path, 405 of a wrong method."""
    if not isinstance(error, HTTPException):  # registered for HTTPException only
        raise error
    kind = _HTTP_TYPES.get(error.status_code, "invalid_request")
    message = f"{error.detail}: {request.method} {request.url.path}"
    return _response(request, error.status_code, kind, message, None, dict(error.headers or {}))


def _describe(error: Exception) -> tuple[str, str | None]:
    """Message and offending field of an exception."""
    if isinstance(error, ServiceError):
        return error.message, error.field
    return describe_mistakes(error) if isinstance(error, ValidationError) else (str(error), None)


def _request_id(request: Request) -> str:
    return str(request.scope.get("tercet.request_id", "-"))


def _response(
    request: Request, status: int, kind: str, message: str, field: str | None, headers: dict[str, str]
) -> Response:
    request_id = _request_id(request)
    facts = {"type": kind, "message": message, "request_id": request_id}
    if field is not None:
        facts["field"] = field
    return Response(orjson.dumps({"error": facts}), status, headers, media_type="application/json")
