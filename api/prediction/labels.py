"""Labels of past predictions: their true classes, which callers send later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from msgspec import Struct

from api.prediction.request import RequestOrigin
from api.services.recording import RecordingServices
from model.errors import UnknownLabel
from monitoring.errors import NothingToLabel, PredictionErased, PredictionNotFound, PredictionPruned, TooManyLabels
from monitoring.ledger.entries import EntryKind, EntryWithPayload, build_event
from monitoring.ledger.reader import LedgerReader
from monitoring.metrics import Metrics

MAX_LABELS = 20
"""The maximum number of labels of one prediction. Responses show all of them."""

# A lock for each prediction that is being labelled, so that the requests to one process keep to MAX_LABELS. With
# several processes, each further one may add one label too many.
_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


class RecordedLabel(Struct, frozen=True):
    """A label with the id of its durable ledger entry. `supersedes` is the id of the label before it, if there is one.

    `model` is the name and version of the model that predicted the class `predicted`.
    """

    id: str
    prediction: str
    model: str
    label: str
    predicted: str
    supersedes: str | None

    @property
    def is_correct(self) -> bool:
        return self.label == self.predicted


async def record_label(
    recording: RecordingServices,
    metrics: Metrics,
    origin: RequestOrigin,
    prediction_id: str,
    label: str,
    *,
    of_anyone: bool,
) -> RecordedLabel:
    """Record the true class of one of the caller's predictions, or with `of_anyone`, of any prediction.

    Raises PredictionNotFound, PredictionErased, PredictionPruned, NothingToLabel, TooManyLabels, UnknownLabel,
    LedgerUnavailable, LedgerFull.
    """
    prediction = await _find_prediction(recording.history, prediction_id, None if of_anyone else origin)
    facts = prediction.read_facts()
    if facts["output"] is None:
        raise NothingToLabel
    _check_label(label, facts["output"]["probabilities"])
    async with _locks.setdefault(prediction_id, asyncio.Lock()):
        earlier = (await recording.history.list_labels([prediction_id])).get(prediction_id, ())
        if len(earlier) >= MAX_LABELS:
            raise TooManyLabels(MAX_LABELS)
        label_id = await recording.ledger.record(describe_label(origin, prediction, facts, label), None)
    model, predicted = facts["model"], facts["output"]["label"]
    recorded = RecordedLabel(
        id=label_id,
        prediction=prediction_id,
        model=f"{model['name']}-v{model['version']}",
        label=label,
        predicted=predicted,
        supersedes=earlier[-1].entry.id if earlier else None,
    )
    metrics.labels.labels(recorded.model, str(recorded.is_correct).lower()).inc()
    return recorded


def describe_label(
    origin: RequestOrigin, prediction: EntryWithPayload, facts: Mapping[str, Any], label: str
) -> dict[str, Any]:
    """Return the facts of a label, ready for JSON.

    The subject of the event is the caller who got the prediction, so that erasing that caller's data erases it,
    whoever sent the label. `by` says who sent it.
    """
    output, model = facts["output"], facts["model"]
    details = {
        "prediction": prediction.entry.id,
        "predicted_at": prediction.entry.at,
        "predicted": output["label"],
        "confidence": output["confidence"],
        "abstained": output.get("abstention", {}).get("reason") is not None,
        "label": label,
        "by": origin.principal.subject,
        "key": origin.principal.key_id,
        "request_id": origin.request_id,
    }
    served = {"name": model["name"], "version": model["version"]}
    return build_event(EntryKind.LABEL, facts["principal"], details, served)


async def _find_prediction(history: LedgerReader, prediction_id: str, owner: RequestOrigin | None) -> EntryWithPayload:
    """Return a prediction of the owner, or of anyone if no owner is given."""
    try:
        return await history.find(prediction_id, owner.principal.subject if owner else None)
    except PredictionNotFound:
        if await history.is_pruned(prediction_id):
            raise PredictionPruned from None
        # Only callers who may label any prediction may learn that a prediction was erased.
        if owner is None and await history.is_erased(prediction_id):
            raise PredictionErased from None
        raise


def _check_label(label: str, classes: Mapping[str, float]) -> None:
    """Raises UnknownLabel."""
    if label not in classes:
        raise UnknownLabel(
            f"The model of this prediction has no class {label!r}. Its classes are {', '.join(classes)}."
        )
