"""`atalaya drift` and the state that it stores, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import asdict
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, select, text

from api.cli import run
from api.services.measuring.drift.metrics import measure_drift
from api.services.measuring.drift.references import Detectors
from api.services.measuring.drift.report import DriftReport, read_report
from api.services.measuring.drift.tracker import DriftTracker, make_sum_updater
from api.services.measuring.drift.upkeep import remove_old
from api.settings import Settings, load_settings
from model.drift.detector import DriftDetector
from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.cost.store import CostStore
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.metrics import Metrics
from monitoring.quality.drift.store import ALL, OTHERS, DriftFinding, StoredState
from monitoring.quality.drift.tables import drift_findings, drift_states
from monitoring.quality.following import SumUpdater
from monitoring.quality.reader import QualityReader
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.api.commands.models.drifting import DARK, build_predictions, record
from tests.monitoring.ledger.ledgers import KEY
from tests.monitoring.quality.entries import append, build_timed, open_chain

MODEL = "efficientnetb0-v1.1"


@pytest.fixture
def url(environment: Settings) -> str:
    return environment.database_url.get_secret_value()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_blocking_engine(url, 30)
    yield engine
    engine.dispose()


def update(engine: Engine, settings: Settings, limit: int = 100) -> DriftReport:
    """Process the recorded predictions and return the drift report."""
    detectors = Detectors(settings)
    for _ in SumUpdater(engine, [DriftTracker(detectors, limit).add]).update():
        pass
    return read_report(engine, detectors)


def run_drift(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    return run(["drift", *arguments]), capsys.readouterr().out


def test_a_finding_names_caller_metric_and_start(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command reports a caller whose images became darker, with the metric and the time, and exits with 1."""
    record(url, build_predictions("test", 400, "bob"), minutes_ago=90)
    record(url, build_predictions("test", 200), minutes_ago=80)
    began = record(url, build_predictions(DARK, 200), minutes_ago=60)
    status, out = run_drift(capsys, "--json")
    found = json.loads(out)
    assert (status, found["drifting"]) == (1, True)
    (brightness,) = (each for each in found["findings"] if (each["caller"], each["metric"]) == ("ana", "brightness"))
    assert (brightness["model"], brightness["change"]) == (MODEL, "lower")
    assert abs(datetime.fromisoformat(brightness["since"]) - began) <= timedelta(minutes=1)
    assert brightness["recent"] < 0.7 * brightness["reference"]
    assert {each["caller"] for each in found["findings"]} <= {"ana", None}
    (model,) = found["models"]
    assert (model["predictions"], model["callers"], len(model["classes"])) == (800, 2, 21)


def test_the_table_fits_a_terminal(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables show the model and the findings in at most 80 columns, and the command exits with 1."""
    record(url, build_predictions(DARK, 200))
    status, out = run_drift(capsys)
    assert status == 1
    assert f"{MODEL}: 200 predictions, 1 caller watched" in out
    assert "all callers   brightness   lower" in out
    assert max(map(len, out.splitlines())) <= 80


def test_normal_traffic_is_no_drift(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Images like the training images are not reported as drift in either run, and the command exits with 0."""
    for _ in range(2):
        record(url, build_predictions("test", 210))
        status, out = run_drift(capsys)
        assert status == 0
        assert "No drift." in out


@pytest.mark.usefixtures("environment")
def test_an_empty_ledger_is_no_drift(capsys: pytest.CaptureFixture[str]) -> None:
    """Without predictions the command says so and exits with 0."""
    status, out = run_drift(capsys)
    assert status == 0
    assert out == "No predictions of a model with a reference in the last seven days.\n"


def test_updates_continue_in_another_process(url: str, engine: Engine, environment: Settings) -> None:
    """A shift is found although each update sees only a part of it and starts from the stored state."""
    parts = build_predictions(DARK, 120)
    for begin in range(0, 120, 40):
        record(url, parts[begin : begin + 40])
        report = update(engine, environment)
    assert ("ana", "brightness") in {(each.caller, each.metric) for each in report.findings}


def test_callers_beyond_the_limit_share_a_state(url: str, engine: Engine, environment: Settings) -> None:
    """With a limit of one caller for each model, the second and third callers share one state."""
    with engine.execution_options(**WRITING).begin() as connection:
        row = asdict(StoredState("another-v1", "dora", "ab" * 32, 1, "", ""))
        connection.execute(drift_states.insert(), [row, row | {"caller": ALL}])
    for name in ("ana", "bob", "cleo"):
        record(url, build_predictions("test", 10, name))
        update(engine, environment, limit=1)
    with engine.begin() as connection:
        own = select(drift_states.c.caller, drift_states.c.predictions).where(drift_states.c.model == MODEL)
        rows = connection.execute(own.order_by(drift_states.c.caller)).all()
    assert [tuple(row) for row in rows] == [(ALL, 30), (OTHERS, 20), ("ana", 10)]


def test_what_is_kept_of_a_person_is_erased(url: str, engine: Engine, environment: Settings) -> None:
    """Erasing a caller's predictions erases the caller's state and findings; those for all callers together stay."""
    record(url, build_predictions(DARK, 150))
    update(engine, environment)
    assert sum(Eraser(engine.execution_options(**WRITING), Signer(KEY), datetime.now(UTC)).erase("ana")) == 150
    assert {each.caller for each in read_report(engine, Detectors(environment)).findings} == {ALL}
    with engine.begin() as connection:
        for table in ("drift_states", "drift_findings"):
            assert not connection.execute(text(f"SELECT * FROM {table} WHERE caller = 'ana'")).all()  # noqa: S608


def test_a_caller_is_forgotten(url: str, engine: Engine, environment: Settings) -> None:
    """A caller without predictions for 31 days is not reported, and its state is removed.

    Its findings end then, and are removed after the retention of the ledger.
    """
    record(url, build_predictions(DARK, 150), minutes_ago=31 * 24 * 60)
    assert update(engine, environment) == DriftReport([], [], {})
    record(url, build_predictions("test", 10, "bob"))
    update(engine, environment)
    remove_old(engine, 90)
    with engine.begin() as connection:
        callers = connection.execute(text("SELECT caller FROM drift_states ORDER BY caller")).scalars().all()
        ends = connection.execute(text("SELECT ended_at FROM drift_findings WHERE caller = 'ana'")).scalars().all()
    assert callers == [ALL, "bob"]
    assert ends
    assert None not in ends
    remove_old(engine, 1)
    with engine.begin() as connection:
        assert not connection.execute(text("SELECT * FROM drift_findings WHERE caller = 'ana'")).all()


@pytest.mark.parametrize("change", [{"digest": "ab" * 32}, {"state": "another shape"}])
def test_findings_end_with_their_state(url: str, engine: Engine, environment: Settings, change: dict[str, str]) -> None:
    """A finding ends when the stored state belongs to another model file or does not fit the reference."""
    record(url, build_predictions(DARK, 150))
    assert update(engine, environment).findings
    with engine.begin() as connection:
        connection.execute(drift_states.update().values(**change))
    record(url, build_predictions("test", 1))
    report = update(engine, environment)
    assert report.findings == []
    assert [model.predictions for model in report.models] == [1]


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "other", "version": "1", "digest": "ab12", "backend": "onnx"}},
        {"image": {"width": "x", "height": 1}},
        {"image": None},
    ],
)
def test_other_and_changed_entries_are_left_out(
    url: str, engine: Engine, environment: Settings, change: dict[str, Any]
) -> None:
    """Predictions of a model without a reference, and entries with an invalid or missing image, are not counted."""
    record(url, [{**each, **change} for each in build_predictions(DARK, 150)])
    record(url, build_predictions("test", 10))
    report = update(engine, environment)
    assert [model.predictions for model in report.models] == [10]


@pytest.mark.parametrize(
    "change",
    [
        {"at": "9999-12-31T23:59:59.999999-10:00"},
        {"at": "9999-12-31T23:59:59.999999Z"},
        {"image": {"width": 1, "height": 1, "brightness": math.inf}},
        {"image": {"width": 10**150, "height": 1}},
        {"name": "x" * 400},
    ],
)
def test_a_changed_row_stops_nothing(url: str, engine: Engine, environment: Settings, change: dict[str, Any]) -> None:
    """A tampered ledger row does not stop the update: the predictions after it are counted."""
    chain = open_chain(url)
    (facts, *_) = drawn = build_predictions("test", 10)
    append(url, [facts], datetime.now(UTC), chain)
    name = {"model": facts["model"] | change} if "name" in change else change
    document = json.dumps({"at": format_timestamp(datetime.now(UTC)), **facts, **name})
    with engine.execution_options(**WRITING).begin() as connection:
        connection.execute(text("UPDATE ledger_payloads SET document = :document"), {"document": document})
    for _ in range(2):
        append(url, drawn, datetime.now(UTC), chain)
        report = update(engine, environment)
    assert sum(each.predictions for each in report.models) >= 20


def test_costs_need_no_drift(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MONITORING__DRIFT_CALLERS=0, costs and confidence are still summed."""
    monkeypatch.setenv("MONITORING__DRIFT_CALLERS", "0")
    append(url, [build_timed()])
    for _ in make_sum_updater(load_settings(), engine).update():
        pass
    assert CostStore(engine).read_month("2026-11").callers["ana"].predictions == 1
    assert [sums.predictions for sums in QualityReader(engine).list_sums(None)] == [1]


def test_findings_of_many_callers_hide_nothing(engine: Engine, environment: Settings) -> None:
    """With more than 1,000 findings, the one for all callers is still listed, and the metrics count every caller."""
    now, earlier = (format_timestamp(datetime.now(UTC) - timedelta(minutes=minutes)) for minutes in (0, 5))
    names = [f"{number:04d}" for number in range(1001)]
    states = [asdict(StoredState(MODEL, name, "ab" * 32, 1, now, "")) for name in [*names, ALL]]
    findings = [asdict(DriftFinding(MODEL, name, "brightness", now, earlier, "lower", 0.5, 0.3)) for name in names]
    findings.append(asdict(DriftFinding(MODEL, ALL, "brightness", now, now, "lower", 0.5, 0.3)))
    with engine.execution_options(**WRITING).begin() as connection:
        connection.execute(drift_states.insert(), states)
        connection.execute(drift_findings.insert(), findings)
    report = read_report(engine, Detectors(environment))
    assert (report.findings[0].caller, len(report.findings)) == (ALL, 1000)
    metrics = Metrics(CollectorRegistry())
    values = {gauge: value for (gauge, _), value in measure_drift(metrics, report) if value}
    assert (values[metrics.drift_callers], values[metrics.drift_overall]) == (1001, 1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_ten_thousand_callers_need_20_megabytes(environment: Settings, engine: Engine) -> None:
    """The states of 10,000 callers with long names take at most 20 MB in SQLite's file."""
    detector = _find_detector(environment)
    text_of_state = detector.begin().encode()
    before = _count_bytes(environment)
    now = format_timestamp(datetime.now(UTC))
    states = [StoredState(MODEL, f"{number:036d}", "ab" * 32, 100_000, now, text_of_state) for number in range(10_000)]
    with engine.begin() as connection:
        connection.execute(drift_states.insert(), [asdict(each) for each in states])
    assert _count_bytes(environment) - before <= 20_000_000


def _find_detector(settings: Settings) -> DriftDetector:
    detector = Detectors(settings).find(MODEL, build_predictions("test", 1)[0]["model"]["digest"])
    assert detector is not None
    return detector


def _count_bytes(settings: Settings) -> int:
    path = settings.database_url.get_secret_value().removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    connection.close()
    return int(pages * size)
