"""`/v2/health/live` and `/v2/health/ready`: `/livez` and `/readyz` for clients of the protocol."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.deps import DrainingDep, HealthDep
from api.schemas.inference import Live, Ready

router = APIRouter(tags=["inference"], prefix="/v2/health")


@router.get("/live")
async def show_live() -> Live:
    """The process responds."""
    return Live(live=True)


@router.get("/ready", response_model=Ready, responses={503: {"model": Ready, "description": "see /readyz"}})
async def show_ready(health: HealthDep, draining: DrainingDep) -> JSONResponse:
    """200 if the gateway can serve predictions, 503 otherwise; /readyz says why."""
    ready = (await health.check()).ready and not draining.begun
    return JSONResponse({"ready": ready}, 200 if ready else 503)
