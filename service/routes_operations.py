"""GET /healthz, /readyz, /metrics and /v1/info: for orchestrators, Prometheus and the page."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.facets import facets
from service.metrics import CONTENT_TYPE
from service.schemas import ErrorAnswer
from service.state import Service, json_response, service_of

router = APIRouter()


@router.get("/healthz", summary="Whether the process answers")
async def healthz() -> Response:
    """Always 200: the process lives."""
    return json_response({"status": "ok"})


@router.get(
    "/readyz", responses={503: {"description": "Still loading"}}, summary="Whether searches can be answered"
)
async def readyz(request: Request) -> Response:
    """200 once the collection is open, its encoders are loaded and a search went through each."""
    live = service_of(request).live
    if live.ready:
        return json_response({"status": "ready"})
    status = "loading" if live.failure is None else "failed"
    return json_response({"status": status}, 503)


@router.get("/metrics", summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, seconds, queue and batch sizes in Prometheus' text format."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE)


@router.get("/v1/info", responses={503: {"model": ErrorAnswer}}, summary="What can be searched, and how")
async def info(request: Request) -> Response:
    """Representations, counts, metadata fields with their commonest values."""
    service = service_of(request)
    return json_response(await service.pool.run(lambda: _info(service)))


def _info(service: Service) -> dict[str, Any]:
    served = service.live.current()
    if served.info is None:
        snapshot = served.snapshot
        served.info = {
            "name": service.settings.collection.resolve().name,
            "version": version("tercet"),
            "n_documents": snapshot.n_documents,
            "n_rows": snapshot.n_rows,
            "using": served.names,
            "default_using": served.using,
            "rerankers": list(served.rerankers),
            "fields": facets(snapshot),
        }
    return served.info
