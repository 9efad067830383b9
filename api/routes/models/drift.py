"""`GET /v1/drift`: whether live traffic differs from the images that the model was measured on."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request

from api.deps import Caller, get_services
from api.http.problems import document_problems
from api.schemas.drift import DriftResponse
from auth.principal import Scope

router = APIRouter(
    tags=["models"],
    responses=document_problems(401, 403, 503),
    dependencies=[Depends(Caller(Scope.MODELS_READ))],
)


@router.get("/v1/drift")
async def show_drift(request: Request) -> DriftResponse:
    """Which callers send images, or get predictions, that differ from the reference of the model, how and since when.

    All callers together and each caller individually are compared with the reference, over the recorded predictions of
    every gateway that uses the same database. At most 1,000 findings are returned: first those of all callers together,
    then the earliest.
    """
    return DriftResponse.of(await get_services(request).recording.quality.report_drift())
