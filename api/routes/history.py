"""`GET /v1/predictions`: the caller's past predictions."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request

from api.deps import Caller, History
from api.http.audit import record_event
from api.schemas.history import PastPage, PastPrediction
from api.schemas.problems import Problem
from auth.principal import Principal, Scope
from monitoring.errors import PredictionNotFound

_MAX_LIMIT = 200
_ID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (401, 403, 404, 503)
}

Reader = Annotated[Principal, Depends(Caller(Scope.PREDICTIONS_READ))]

router = APIRouter(tags=["predictions"], responses=_ERROR_RESPONSES)


@router.get("/v1/predictions")
async def past_predictions(
    history: History,
    principal: Reader,
    limit: Annotated[int, Query(ge=1, le=_MAX_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(pattern=_ID, description="`next` of the previous page")] = None,
) -> PastPage:
    """Your requests, newest first, including refused ones."""
    recorded = await history.list_newest(principal.subject, limit + 1, cursor)
    page = recorded[:limit]
    next_cursor = page[-1].entry.id if len(recorded) > limit else None
    return PastPage(entries=[PastPrediction.of(item) for item in page], next=next_cursor)


@router.get("/v1/predictions/{prediction_id}")
async def past_prediction(request: Request, prediction_id: str, history: History, principal: Reader) -> PastPrediction:
    """One of your requests as it was recorded, with its place in the ledger."""
    try:
        if not re.fullmatch(_ID, prediction_id):
            raise PredictionNotFound
        return PastPrediction.of(await history.find(prediction_id, principal.subject))
    except PredictionNotFound:
        await record_event(request, "prediction", "not_found")
        raise
