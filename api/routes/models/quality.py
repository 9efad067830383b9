"""`GET /v1/models/{name}/quality`: the quality of a model on live traffic."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request

from api.deps import Caller, get_services
from api.http.problems import document_problems
from api.schemas.fields import Timestamp
from api.schemas.quality import QualityResponse
from api.services.measuring.quality import start_of_hour
from auth.principal import Scope

_Name = Annotated[str, Path(max_length=320)]
_Version = Annotated[str | None, Query(max_length=320, description="only this version")]
_Since = Annotated[
    Timestamp | None, Query(description="only predictions made since the beginning of the hour of this time")
]

router = APIRouter(
    tags=["models"],
    responses=document_problems(401, 403, 404, 422, 503),
    dependencies=[Depends(Caller(Scope.MODELS_READ))],
)


@router.get("/v1/models/{name}/quality")
async def show_quality(
    request: Request, name: _Name, version: _Version = None, since: _Since = None
) -> QualityResponse:
    """Accuracy, calibration error and confusions by version from labels, and the accuracy estimated without labels."""
    start = start_of_hour(since) if since is not None else None
    versions = await get_services(request).recording.quality.compute(name, version, start)
    return QualityResponse.of(name, start, versions)
