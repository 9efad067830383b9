"""`/livez` and `/readyz`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.deps import DrainingDep, HealthDep
from api.schemas.health import Readiness

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process responds."""
    return {"status": "alive"}


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "see `checks`"}})
async def readyz(health: HealthDep, draining: DrainingDep) -> JSONResponse:
    """200 if the gateway can serve predictions; 503 otherwise, and while it is stopping. `checks` has the details.

    Without the database, it can serve them until the spool is full.
    """
    result = await health.check()
    ready = result.ready and not draining.begun
    status = "ready" if ready else "stopping" if draining.begun else "not ready"
    return JSONResponse({"status": status, "checks": dict(result.checks)}, 200 if ready else 503)
