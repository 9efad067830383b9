"""`/metrics` for callers who hold `metrics:read`; the private port needs no login."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import PlainTextResponse, Response

from api.deps import Caller
from auth.principal import Scope


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """Serve what `registry` holds, as Prometheus text."""
    router = APIRouter(tags=["monitoring"])

    @router.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(Caller(Scope.METRICS_READ))])
    async def metrics() -> Response:
        # In a thread: with several workers there are files to read.
        return Response(await asyncio.to_thread(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)

    return router
