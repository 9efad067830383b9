"""`/metrics` for callers with `metrics:read`; the private port serves the same without credentials."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from api.deps import Caller
from api.routes.negotiation import choose_media_type
from auth.principal import Scope

_TEXT, _OPENMETRICS = "text/plain", "application/openmetrics-text"


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """Serve the metrics of `registry` as Prometheus text."""
    router = APIRouter(tags=["monitoring"])

    @router.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(Caller(Scope.METRICS_READ))])
    async def metrics(request: Request) -> Response:
        """The gateway's metrics as Prometheus text, or as OpenMetrics, with trace ids, for clients that prefer it."""
        # In a thread: several workers share their metrics through files, which it must read.
        content, content_type = await asyncio.to_thread(encode_metrics, registry, request.headers.get("accept", ""))
        return Response(content, headers={"Vary": "Accept"}, media_type=content_type)

    return router


def encode_metrics(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that an Accept header prefers, and its media type."""
    if choose_media_type(accept, (_TEXT, _OPENMETRICS)) == _OPENMETRICS:
        content: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return content, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
