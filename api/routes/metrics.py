"""`/metrics` for callers with `metrics:read`; the private port serves the same without credentials."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from api.deps import Caller
from auth.principal import Scope


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """Serve the metrics of `registry` as Prometheus text."""
    router = APIRouter(tags=["monitoring"])

    @router.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(Caller(Scope.METRICS_READ))])
    async def metrics(request: Request) -> Response:
        """The gateway's metrics as Prometheus text, or as OpenMetrics, with trace ids, for clients that accept it."""
        # In a thread: several workers share their metrics through files, which it must read.
        content, content_type = await asyncio.to_thread(_encode, registry, request.headers.get("accept", ""))
        return Response(content, media_type=content_type)

    return router


def _encode(registry: CollectorRegistry, accepted: str) -> tuple[bytes, str]:
    """Return the metrics, and the media type of their format."""
    if "application/openmetrics-text" in accepted:
        content: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return content, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_LATEST
