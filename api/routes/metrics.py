"""`/metrics` for callers with `metrics:read`; the private port serves the same without credentials."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import PlainTextResponse, Response

from api.deps import Caller
from auth.principal import Scope


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """Serve the metrics of `registry` as Prometheus text."""
    router = APIRouter(tags=["monitoring"])

    @router.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(Caller(Scope.METRICS_READ))])
    async def metrics() -> Response:
        """The gateway's metrics as Prometheus text."""
        # In a thread: several workers share their metrics through files, which it must read.
        return Response(await asyncio.to_thread(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)

    return router
