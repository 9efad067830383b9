"""`/livez` and `/readyz`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.deps import Rooms
from api.schemas.predictions import Readiness

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "see `checks`"}})
async def readyz(rooms: Rooms) -> JSONResponse:
    """Every dependency answers; 503 with the state of each where one does not, or where the gateway is stopping."""
    result = await rooms["health"].ask()
    ready = result.ready and not rooms["draining"].begun
    status = "ready" if ready else "stopping" if rooms["draining"].begun else "not ready"
    return JSONResponse({"status": status, "checks": dict(result.checks)}, 200 if ready else 503)
