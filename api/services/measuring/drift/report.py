"""The drift at this moment, for `GET /v1/drift`, `atalaya drift` and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from sqlalchemy import Engine

from api.services.measuring.drift.references import Detectors
from api.services.measuring.drift.tracker import decode_state
from model.drift.detector import DriftDetector
from model.drift.metrics import MEASURES, Metric
from model.drift.state import DriftState
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.transactions import ledger_errors
from monitoring.quality.drift.store import ALL, DriftFinding, DriftStore, StoredState

CURRENT = timedelta(days=7)
"""Drift is reported only for callers that have sent something within this time."""


class DriftComparison(Struct, frozen=True):
    """A measure, or the share of a class, in the reference and in recent predictions."""

    name: str
    reference: float | None
    recent: float | None


class ModelDrift(Struct, frozen=True):
    """The predictions of a model for all callers together. `callers` is the number of callers tracked individually."""

    model: str
    predictions: int
    callers: int
    last_prediction: str
    measures: Sequence[DriftComparison]
    classes: Sequence[DriftComparison]


class DriftReport(Struct, frozen=True):
    """`findings` are ongoing, at most 1,000, the oldest first after those of the pseudo-caller ALL (all callers).

    `drifting_callers` counts every drifting caller, by model and metric.
    """

    models: Sequence[ModelDrift]
    findings: Sequence[DriftFinding]
    drifting_callers: Mapping[tuple[str, str], int]


def read_report(engine: Engine, detectors: Detectors) -> DriftReport:
    """Raises LedgerUnavailable."""
    since = format_timestamp(datetime.now(UTC) - CURRENT)
    with ledger_errors(engine.url), engine.begin() as connection:
        store = DriftStore(connection)
        states = [state for state in store.list_states(ALL) if state.seen_at >= since]
        counts = [store.count_callers(state.model) for state in states]
        findings, drifting_callers = store.list_ongoing(since), store.count_ongoing(since)
    models = [_describe(detectors, state, callers) for state, callers in zip(states, counts, strict=True)]
    return DriftReport(models, findings, drifting_callers)


def _describe(detectors: Detectors, stored: StoredState, callers: int) -> ModelDrift:
    detector = detectors.find(stored.model, stored.digest)
    measures, classes = list[DriftComparison](), list[DriftComparison]()
    if detector is not None:
        state = decode_state(detector, stored.digest, stored) or detector.begin()
        measures = [_compare(detector, state, metric, metric) for metric in MEASURES]
        classes = [_compare(detector, state, Metric.CLASS_MIX, name) for name in detector.reference.classes]
    return ModelDrift(stored.model, stored.predictions, callers, stored.seen_at, measures, classes)


def _compare(detector: DriftDetector, state: DriftState, metric: Metric, name: str) -> DriftComparison:
    return DriftComparison(name, *detector.compare(state, metric, name))
