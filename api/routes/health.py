"""`/livez` and `/readyz`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.deps import Rooms
from monitoring.health import readiness

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "A dependency is not ready; `checks` says which."}})
async def readyz(rooms: Rooms) -> JSONResponse:
    """Every dependency answers; 503 with the state of each where one does not."""
    result = await readiness(rooms["readiness"])
    body = {"status": "ready" if result.ready else "not ready", "checks": dict(result.checks)}
    return JSONResponse(body, 200 if result.ready else 503)
