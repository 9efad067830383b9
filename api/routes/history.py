"""`/v1/predictions`: the caller's past predictions, and their true labels."""

from __future__ import annotations

import re
from typing import Annotated

import structlog
from fastapi import APIRouter, BackgroundTasks, Depends, Query
from starlette.requests import Request

from api.deps import Caller, CurrentPrincipal, GuardedRoute, History, get_services
from api.http.audit import record_event
from api.http.paging import ENTRY_ID
from api.http.problems import document_problems
from api.prediction.labels import RecordedLabel, record_label
from api.routes.recorded.recorded_route import describe_origin
from api.schemas.fields import UuidInPath
from api.schemas.history import PastPage, PastPrediction
from api.schemas.labels import LabelResponse, NewLabel
from api.services.canary.running import CanaryServices
from auth.principal import Principal, Scope
from monitoring.errors import PredictionNotFound
from storage.errors import StorageError

_MAX_LIMIT = 200

Reader = Annotated[Principal, Depends(Caller(Scope.PREDICTIONS_READ))]
_require_predict = Caller(Scope.PREDICT)

log = structlog.get_logger("atalaya.labels")
router = APIRouter(tags=["predictions"], responses=document_problems(401, 403, 404, 503), route_class=GuardedRoute)


@router.get("/v1/predictions")
async def past_predictions(
    history: History,
    principal: Reader,
    limit: Annotated[int, Query(ge=1, le=_MAX_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(pattern=ENTRY_ID, description="`next` of the previous page")] = None,
) -> PastPage:
    """Your requests, newest first, including rejected ones."""
    recorded = await history.list_newest(principal.subject, limit + 1, cursor)
    page = recorded[:limit]
    labels = await history.list_labels([item.entry.id for item in page])
    next_cursor = page[-1].entry.id if len(recorded) > limit else None
    entries = [PastPrediction.of(item, labels.get(item.entry.id, ())) for item in page]
    return PastPage(entries=entries, next=next_cursor)


@router.get("/v1/predictions/{prediction_id}")
async def past_prediction(
    request: Request, prediction_id: UuidInPath, history: History, principal: Reader
) -> PastPrediction:
    """One of your requests as it was recorded, with its labels and its place in the ledger."""
    try:
        _check_id(prediction_id)
        recorded = await history.find(prediction_id, principal.subject)
    except PredictionNotFound:
        await record_event(request, "prediction", "not_found")
        raise
    labels = await history.list_labels([prediction_id])
    return PastPrediction.of(recorded, labels.get(prediction_id, ()))


@router.post("/v1/predictions/{prediction_id}/label", status_code=201, responses=document_problems(409, 410, 422))
async def label_prediction(
    request: Request, prediction_id: UuidInPath, body: NewLabel, principal: CurrentPrincipal, tasks: BackgroundTasks
) -> LabelResponse:
    """Record the true label of one of your predictions; with `models:write`, of any prediction.

    A later label of the same prediction supersedes it, and both stay in the ledger.
    """
    labels_anyone = Scope.MODELS_WRITE in principal.scopes
    if not labels_anyone:
        await _require_predict(request)
    services, origin = get_services(request), describe_origin(request, principal)
    try:
        _check_id(prediction_id)
        recorded = await record_label(
            services.recording, services.runtime.metrics, origin, prediction_id, body.label, of_anyone=labels_anyone
        )
    except PredictionNotFound:
        await record_event(request, "prediction", "not_found")
        raise
    tasks.add_task(_compare_candidate, services.canary, recorded)
    return LabelResponse.of(recorded)


async def _compare_candidate(canary: CanaryServices, label: RecordedLabel) -> None:
    """Count the label as evidence if a candidate has classified the image. The label itself is already recorded."""
    try:
        await canary.record_label(label.prediction, label.label)
    except StorageError as error:
        log.error("label_not_compared", label=label.id, code=error.code, policy="the label counts for accuracy alone")


def _check_id(prediction_id: str) -> None:
    """Raises PredictionNotFound for a malformed id."""
    if not re.fullmatch(ENTRY_ID, prediction_id):
        raise PredictionNotFound
