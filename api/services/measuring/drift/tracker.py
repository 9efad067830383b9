"""Adds predictions to the drift states of their callers, and records findings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, TypeGuard

import numpy as np
from msgspec import Struct
from sqlalchemy import Connection, Engine

from api.services.measuring.drift.references import Detectors
from api.settings import Settings
from model.drift.detector import Alarm, AllClear, DriftDetector
from model.drift.metrics import Observations, measure
from model.drift.state import DriftState
from monitoring.chains.timestamps import format_timestamp
from monitoring.cost.sums import add_cost_sums
from monitoring.ledger.entries import sanitize_name
from monitoring.ledger.payloads import read_number
from monitoring.quality.drift.store import ALL, OTHERS, DriftFinding, DriftStore, Key, StoredState
from monitoring.quality.following import RecordedRequest, SumUpdater
from monitoring.quality.sums import add_confidence_sums

# Bounds for altered entries: times that survive rounding, and numbers that fit in float32.
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)
_MAX_NUMBER = 1e12


class _Prediction(Struct, frozen=True):
    """The parts of a ledger entry that drift depends on. `at` is in seconds since 1970."""

    model: str
    digest: str
    caller: str
    label: str
    measures: tuple[float, ...]
    at: float


def make_sum_updater(settings: Settings, engine: Engine, detectors: Detectors | None = None) -> SumUpdater:
    """Return an updater that adds ledger entries to the confidence sums, the cost sums and the drift states."""
    tracker = DriftTracker(detectors or Detectors(settings), settings.monitoring.drift_callers)
    return SumUpdater(engine, (add_confidence_sums, add_cost_sums, tracker.add))


class DriftTracker:
    """Tracks up to `limit` callers of each model individually, and all others together."""

    def __init__(self, detectors: Detectors, limit: int) -> None:
        self._detectors = detectors
        self._limit = limit

    def add(self, connection: Connection, requests: Sequence[RecordedRequest]) -> None:
        """Add the predictions among the requests. `connection` must be in a write transaction."""
        groups = self._group(requests) if self._limit else {}
        if not groups:
            return
        store = DriftStore(connection)
        callers = {(model, caller) for model, _, caller in groups}
        tracked = self._choose_tracked(store, callers)
        merged = defaultdict[Key, list[_Prediction]](list)
        for (model, _, caller), predictions in groups.items():
            merged[model, caller if (model, caller) in tracked else OTHERS] += predictions
            merged[model, ALL] += predictions
        states = store.lock(merged.keys())
        store.save([self._update(store, states[key], predictions) for key, predictions in merged.items()])

    def _group(self, requests: Sequence[RecordedRequest]) -> Mapping[tuple[str, str, str], list[_Prediction]]:
        """Return the predictions of models that have a reference, by model, digest and caller."""
        groups = defaultdict[tuple[str, str, str], list[_Prediction]](list)
        for request in requests:
            each = _read_prediction(request)
            if each is not None and self._detectors.find(each.model, each.digest) is not None:
                groups[each.model, each.digest, each.caller].append(each)
        return groups

    def _update(self, store: DriftStore, stored: StoredState, predictions: list[_Prediction]) -> StoredState:
        """Return the state with the predictions added, and record the findings that begin, repeat or end."""
        predictions.sort(key=lambda each: each.at)
        key, digest = (stored.model, stored.caller), predictions[-1].digest
        detector = self._detectors.find(stored.model, digest)
        assert detector is not None  # noqa: S101  (_group omits models without a detector)
        state = decode_state(detector, digest, stored)
        if state is None:
            state = detector.begin()
            store.end_findings(key, _format(predictions[0].at))  # the new state begins without alarms
        for event in drop_repeats(detector.update(state, _observe(detector, predictions))):
            if isinstance(event, Alarm):
                finding = _describe_alarm(detector, state, key, event)
                (store.begin_finding if event.is_new else store.repeat_finding)(finding)
            else:
                store.end_finding(key, event.metric, _format(event.at))
        return StoredState(*key, digest, state.predictions, _format(state.seen_at), state.encode())

    def _choose_tracked(self, store: DriftStore, callers: set[Key]) -> set[Key]:
        """Return the callers that are tracked individually, adding new ones up to the limit of each model."""
        tracked = store.list_known(callers)
        new = defaultdict[str, list[Key]](list)
        for key in sorted(callers - tracked):
            new[key[0]].append(key)
        for model, keys in new.items():
            tracked |= set(keys[: max(0, self._limit - store.count_callers(model))])
        return tracked


def decode_state(detector: DriftDetector, digest: str, stored: StoredState) -> DriftState | None:
    """Return the stored state for this detector; None if it is empty or belongs to another detector or digest."""
    if stored.digest != digest:
        return None
    try:
        seen_at = datetime.fromisoformat(stored.seen_at).timestamp()
        return detector.decode(stored.state, stored.predictions, seen_at)
    except ValueError:
        return None


def _observe(detector: DriftDetector, predictions: Sequence[_Prediction]) -> Observations:
    classes = {name: index for index, name in enumerate(detector.reference.classes)}
    return Observations(
        np.array([classes.get(each.label, -1) for each in predictions], np.int64),
        np.array([each.measures for each in predictions]),
        np.array([each.at for each in predictions]),
    )


def drop_repeats(events: Sequence[Alarm | AllClear]) -> Iterator[Alarm | AllClear]:
    """Drop each repeated alarm that is directly followed by another repeated alarm of the same metric."""
    for event, following in zip_longest(events, events[1:]):
        is_replaced = _is_repeat(event) and _is_repeat(following) and event.metric == following.metric
        if not is_replaced:
            yield event


def _is_repeat(event: Alarm | AllClear | None) -> TypeGuard[Alarm]:
    return isinstance(event, Alarm) and not event.is_new


def _describe_alarm(detector: DriftDetector, state: DriftState, key: Key, alarm: Alarm) -> DriftFinding:
    reference, recent = detector.compare(state, alarm.metric, alarm.change)
    return DriftFinding(*key, alarm.metric, _format(alarm.at), _format(alarm.since), alarm.change, reference, recent)


def _read_prediction(request: RecordedRequest) -> _Prediction | None:
    """Return the prediction, or None for another or an altered entry. Entries of old releases lack some measures."""
    document = request.document
    try:
        output, model, image = document["output"], document["model"], document["image"]
        if output is None or model is None:
            return None
        return _Prediction(
            sanitize_name(f"{model['name']}-v{model['version']}"),
            str(model["digest"]),
            sanitize_name(document["principal"]),
            str(output["label"]),
            measure(
                confidence=_read_number(output, "confidence"),
                gate_score=_read_number(output, "gate_score"),
                brightness=_read_number(image, "brightness"),
                sharpness=_read_number(image, "sharpness"),
                width=int(read_number(image["width"])),
                height=int(read_number(image["height"])),
            ),
            min(request.at, _LATEST).timestamp(),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None  # `atalaya ledger verify` reports altered entries


def _read_number(members: Mapping[str, Any], name: str) -> float:
    """Return a number, NaN if it is missing. Raises ValueError if it is not finite or above _MAX_NUMBER."""
    value = members.get(name)
    if value is None:
        return math.nan
    if not abs(float(value)) <= _MAX_NUMBER:
        raise ValueError(f"{name} is out of range")
    return float(value)


def _format(seconds: float) -> str:
    return format_timestamp(datetime.fromtimestamp(seconds, UTC))
