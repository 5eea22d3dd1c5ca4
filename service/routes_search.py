"""POST /v1/search, GET /v1/documents/{id}, POST /v1/embeddings."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from retrieval.encoders import query_value
from retrieval.values import Dense, Document
from service.answers import Wanted, document_object, find, to_json
from service.errors import UnknownDocumentError, invalid
from service.schemas import (
    DocumentShape,
    EmbeddingsBody,
    ErrorAnswer,
    SearchAnswer,
    SearchBody,
)
from service.state import Service, json_response, read_body, service_of

router = APIRouter()
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (404, 413, 422, 500, 503)
}


def _takes(body: type[SearchBody] | type[EmbeddingsBody]) -> dict[str, Any]:
    """The request body for /openapi.json; the route reads the bytes itself, in one pass."""
    content = {"application/json": {"schema": body.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/v1/search",
    response_model=SearchAnswer,
    responses={status: _ERRORS[status] for status in (413, 422, 500, 503)},
    openapi_extra=_takes(SearchBody),
    summary="Search with one query or many",
)
async def search(request: Request) -> Response:
    """The best documents of each query, each by its best passage."""
    service = service_of(request)
    body = SearchBody.model_validate_json(await read_body(request))
    answer = partial(_search, service)
    size = max(1, len(body.texts))
    return json_response(await service.pool.join(answer, body, body.manner, size, request.is_disconnected))


def _search(service: Service, bodies: Sequence[SearchBody]) -> list[bytes]:
    """Answer searches that differ in their queries only, as one, on a worker thread."""
    started = time.perf_counter()
    served = service.live.current()
    body = bodies[0]
    searcher = served.searcher(body.using, body.rerank, query_bank=body.query_bank)
    wanted = Wanted(
        k=body.k,
        depth=body.depth,
        allowed=served.allowed(body.filter),
        explain=body.explain,
        analyzer=served.analyzer() if body.highlight else None,
        text=body.text,
    )
    found = find(served.snapshot, searcher, [text for body in bodies for text in body.texts], wanted)
    service.metrics.queries(_label(body.using or served.using), len(found))
    took_ms = round((time.perf_counter() - started) * 1000, 3)
    answers, start = [], 0
    for body in bodies:
        own = found[start : start + len(body.texts)]
        start += len(own)
        answers.append(to_json({"results": [{"hits": hits} for hits in own], "took_ms": took_ms}))
    return answers


def _label(using: str) -> str:
    """A value for /metrics that clients cannot multiply: one index's name, found by now, or "combined"."""
    return "combined" if "+" in using or ":" in using else using


@router.get(
    "/v1/documents/{id:path}",
    response_model=DocumentShape,
    responses={status: _ERRORS[status] for status in (404, 500, 503)},
    summary="One document by its id",
)
async def document(request: Request) -> Response:
    """The whole document; an id may contain slashes."""
    service = service_of(request)
    id_: str = request.path_params["id"]
    found = await service.pool.run(lambda: service.live.current().snapshot.document(id_))
    if found is None:
        raise UnknownDocumentError(f"no document has the id {id_!r}", "id")
    return json_response(document_object(found))


@router.post(
    "/v1/embeddings",
    responses={status: _ERRORS[status] for status in (413, 422, 500, 503)},
    openapi_extra=_takes(EmbeddingsBody),
    summary="Vectors of texts, in the OpenAI shape",
)
async def embeddings(request: Request) -> Response:
    """Vectors of the collection's dense encoder. Without ``usage``: batches are shared, tokens are not told apart."""
    service = service_of(request)
    body = EmbeddingsBody.model_validate_json(await read_body(request))
    return json_response(await service.pool.run(partial(_embed, service, body), request.is_disconnected))


def _embed(service: Service, body: EmbeddingsBody) -> bytes:
    served = service.live.current()
    dense = [
        name
        for name, encoder in served.encoders.items()
        if getattr(encoder, "value", None) is Dense and query_value(encoder) is Dense
    ]
    if not dense:
        invalid("model", "this collection has no dense encoder")
    encoder = served.encoders[dense[0]]
    if body.input_type == "query":
        vectors = encoder.encode_queries(body.texts).values
    else:
        vectors = encoder.encode_documents([Document("", text) for text in body.texts]).values
    rows = vectors.astype("<f4")
    if body.encoding_format == "base64":
        shown = [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]
    else:
        shown = rows.tolist()
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(shown)]
    return to_json({"object": "list", "data": data, "model": body.model or dense[0]})
