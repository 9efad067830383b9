"""Adds predictions to the drift states of their callers, and records findings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any, TypeGuard

import numpy as np
from msgspec import Struct, field
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
from monitoring.quality.drift.store import ALL, OTHERS, DriftFinding, DriftStore, FindingEnd, Key, StoredState
from monitoring.quality.following import RecordedRequest, SumUpdater, WriteSums
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


_Groups = Mapping[tuple[str, str, str], list[_Prediction]]
"""Predictions by model, digest and caller, in the order of the ledger."""


class _Update(Struct):
    """The states before and after some predictions, and the changes of findings.

    A change is a method of DriftStore and an item of its argument. `restarts` maps the keys of states that begin again,
    without alarms, to the time of their first prediction.
    """

    before: Mapping[Key, StoredState]
    after: list[StoredState] = field(default_factory=list)
    changes: list[tuple[Callable[[DriftStore, Sequence[Any]], None], object]] = field(default_factory=list)
    restarts: dict[Key, str] = field(default_factory=dict)


def make_sum_updater(settings: Settings, engine: Engine, detectors: Detectors | None = None) -> SumUpdater:
    """Return an updater that adds ledger entries to the confidence sums, the cost sums and the drift states."""
    tracker = DriftTracker(detectors or Detectors(settings), settings.monitoring.drift_callers)
    return SumUpdater(engine, (add_confidence_sums, add_cost_sums, tracker.add))


class DriftTracker:
    """Tracks up to `limit` callers of each model individually, and all others together."""

    def __init__(self, detectors: Detectors, limit: int) -> None:
        self._detectors = detectors
        self._limit = limit

    def add(self, connection: Connection, requests: Sequence[RecordedRequest]) -> WriteSums:
        """Compute the states with the predictions among the requests."""
        groups = self._group(requests) if self._limit else {}
        if not groups:
            return _write_nothing
        store = DriftStore(connection)
        predictions = self._merge(store, groups)
        return partial(self._write, groups, self._compute(store.read(predictions.keys()), predictions))

    def _write(self, groups: _Groups, update: _Update, connection: Connection) -> None:
        """Write the update, after computing it again if other processes have changed the states meanwhile."""
        store = DriftStore(connection)
        predictions = self._merge(store, groups)
        states = store.lock(predictions.keys())
        if states != update.before:
            update = self._compute(states, predictions)
        if update.restarts:
            store.end_all_findings(update.restarts)
        for write, changes in groupby(update.changes, key=itemgetter(0)):
            write(store, [change for _, change in changes])
        store.save(update.after)

    def _merge(self, store: DriftStore, groups: _Groups) -> Mapping[Key, list[_Prediction]]:
        """Return the predictions of each state."""
        tracked = self._choose_tracked(store, {(model, caller) for model, _, caller in groups})
        merged = defaultdict[Key, list[_Prediction]](list)
        for (model, _, caller), predictions in groups.items():
            merged[model, caller if (model, caller) in tracked else OTHERS] += predictions
            merged[model, ALL] += predictions
        for predictions in merged.values():
            predictions.sort(key=lambda each: each.at)
        return merged

    def _group(self, requests: Sequence[RecordedRequest]) -> _Groups:
        """Return the predictions of models that have a reference, by model, digest and caller."""
        groups = defaultdict[tuple[str, str, str], list[_Prediction]](list)
        for request in requests:
            each = _read_prediction(request)
            if each is not None and self._detectors.find(each.model, each.digest) is not None:
                groups[each.model, each.digest, each.caller].append(each)
        return groups

    def _compute(self, states: Mapping[Key, StoredState], predictions: Mapping[Key, list[_Prediction]]) -> _Update:
        update = _Update(states)
        for key, added in predictions.items():
            self._add_to_state(update, states[key], added)
        return update

    def _add_to_state(self, update: _Update, stored: StoredState, predictions: list[_Prediction]) -> None:
        """Compute the state with the predictions added, and the findings that begin, repeat or end."""
        key, digest = (stored.model, stored.caller), predictions[-1].digest
        detector = self._detectors.find(stored.model, digest)
        assert detector is not None  # noqa: S101  (_group omits models without a detector)
        state = decode_state(detector, digest, stored)
        if state is None:
            state = detector.begin()
            update.restarts[key] = _format(predictions[0].at)
        for event in drop_repeats(detector.update(state, _observe(detector, predictions))):
            if isinstance(event, Alarm):
                finding = _describe_alarm(detector, state, key, event)
                write = DriftStore.begin_findings if event.is_new else DriftStore.repeat_findings
                update.changes.append((write, finding))
            else:
                update.changes.append((DriftStore.end_findings, FindingEnd(*key, event.metric, _format(event.at))))
        update.after.append(StoredState(*key, digest, state.predictions, _format(state.seen_at), state.encode()))

    def _choose_tracked(self, store: DriftStore, callers: set[Key]) -> set[Key]:
        """Return the callers that are tracked individually, adding new ones up to the limit of each model."""
        tracked = store.list_known(callers)
        new = defaultdict[str, list[Key]](list)
        for key in sorted(callers - tracked):
            new[key[0]].append(key)
        for model, keys in new.items():
            tracked |= set(keys[: max(0, self._limit - store.count_callers(model))])
        return tracked


def _write_nothing(_connection: Connection) -> None:
    """Write no predictions of models with a reference, because there are none."""


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
