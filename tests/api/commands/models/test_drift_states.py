"""How updates of several processes change the states and findings of drift."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from api.services.measuring.drift.references import Detectors
from api.services.measuring.drift.tracker import DriftTracker, make_sum_updater
from api.settings import Settings
from model.drift.detector import Alarm, AllClear, DriftDetector
from model.drift.metrics import Metric
from monitoring.chains.timestamps import format_timestamp
from monitoring.quality.drift.store import ALL
from monitoring.quality.drift.tables import drift_findings, drift_states
from monitoring.quality.following import RecordedRequest, parse_requests
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.api.commands.models.drifting import build_predictions, record

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


@pytest.fixture
def engine(environment: Settings) -> Iterator[Engine]:
    engine = open_blocking_engine(environment.database_url.get_secret_value(), 1).execution_options(**WRITING)
    yield engine
    engine.dispose()


@pytest.fixture
def tracker(environment: Settings) -> DriftTracker:
    return DriftTracker(Detectors(environment), 100)


def build_requests(count: int, principal: str = "ana") -> Sequence[RecordedRequest]:
    facts = build_predictions("test", count, principal)
    return parse_requests(json.dumps({"at": format_timestamp(AT), **each}) for each in facts)


def add(engine: Engine, tracker: DriftTracker, requests: Sequence[RecordedRequest]) -> None:
    with engine.begin() as connection:
        tracker.add(connection, requests)(connection)


def count_predictions(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(drift_states.c.caller, drift_states.c.predictions))
    return {row.caller: row.predictions for row in rows}


def test_updates_computed_from_the_same_states(engine: Engine, tracker: DriftTracker) -> None:
    """An update whose states another process has changed meanwhile is computed again, so no prediction is lost."""
    add(engine, tracker, build_requests(5))
    with engine.begin() as connection:
        writes = [tracker.add(connection, build_requests(count)) for count in (10, 20)]
    for write in writes:
        with engine.begin() as connection:
            write(connection)
    with engine.begin() as connection:
        assert count_predictions(connection) == {"ana": 35, ALL: 35}


def test_new_callers_of_two_processes_respect_the_limit(engine: Engine, environment: Settings) -> None:
    """Two processes that see a new caller each, with one caller left to the limit, track only one individually."""
    trackers = [DriftTracker(Detectors(environment), 1) for _ in range(2)]
    with engine.begin() as connection:
        writes = [each.add(connection, build_requests(3, name)) for each, name in zip(trackers, "ab", strict=True)]
    for write in writes:
        with engine.begin() as connection:
            write(connection)
    with engine.begin() as connection:
        assert count_predictions(connection) == {"a": 3, "(others)": 3, ALL: 6}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_predictions_can_be_recorded_while_states_are_computed(
    engine: Engine, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update runs the detectors before the transaction that locks SQLite."""
    record(environment.database_url.get_secret_value(), build_predictions("test", 5))
    writes, original = 0, DriftDetector.update

    def write_and_update(*arguments: Any) -> Any:
        nonlocal writes
        with engine.begin() as other:  # fails after a second if SQLite is locked
            other.execute(text("UPDATE ledger_heads SET claimed = claimed"))
        writes += 1
        return original(*arguments)

    monkeypatch.setattr(DriftDetector, "update", write_and_update)
    updating = open_blocking_engine(environment.database_url.get_secret_value())
    for _ in make_sum_updater(environment, updating).update():
        pass
    updating.dispose()
    with engine.begin() as connection:
        assert (writes, count_predictions(connection)) == (2, {"ana": 5, ALL: 5})


def test_a_drift_that_ends_and_begins_again(
    engine: Engine, tracker: DriftTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events of one update are written in their order: an end does not end the finding that begins after it."""
    first, second, end, again = ((AT + timedelta(minutes=minutes)).timestamp() for minutes in range(4))
    events = [
        Alarm(Metric.BRIGHTNESS, "lower", first, first, is_new=True),
        Alarm(Metric.BRIGHTNESS, "higher", first, second, is_new=False),
        AllClear(Metric.BRIGHTNESS, end),
        Alarm(Metric.BRIGHTNESS, "lower", again, again, is_new=True),
    ]
    monkeypatch.setattr(DriftDetector, "update", lambda *_: events)
    add(engine, tracker, build_requests(5))
    columns = drift_findings.c
    own = select(columns.found_at, columns.change, columns.ended_at).where(columns.caller == "ana")
    with engine.begin() as connection:
        rows = connection.execute(own.order_by(columns.found_at)).all()
    ended_at, found_again_at = (format_timestamp(AT + timedelta(minutes=minutes)) for minutes in (2, 3))
    assert rows == [(format_timestamp(AT), "higher", ended_at), (found_again_at, "lower", None)]
