"""The rules for recommendations in a report, and the page that shows them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from api.commands.reporting.document import (
    CallerTraffic,
    Incident,
    PeriodTraffic,
    Report,
    RuntimeChange,
    SecurityEvents,
    ServedVersion,
)
from api.commands.reporting.quarter import Quarter, parse_quarter
from api.commands.reporting.recommendations import MIN_MEASURED_HOURS, with_recommendations
from api.commands.reporting.render import Language, read_texts, render_report
from model.quality.intervals import Interval
from monitoring.cost.formula import RAILWAY, Amounts
from monitoring.cost.month import NO_COST, MonthCost
from monitoring.cost.scenarios import Machine, MachineScenario, Sleep
from monitoring.quality.drift.store import DriftFinding
from monitoring.quality.evaluations import EvaluationComparison, EvaluationRecord
from monitoring.tasks.runs import Task, TaskRuns

QUARTER = Quarter(2026, 3)
END = round(QUARTER.end.timestamp())
BACKUP = TaskRuns(Task.BACKUP, END - 3600, None, 0)
FAILURE = Incident("2026-08-01", "task_failed", "backup", 2, 0)
GOOD = Interval(0.97, 0.95, 0.98)
MONTH = PeriodTraffic("2026-07", 1000, 1000, 0, 0, 0, {50: 20.0, 95: 30.0, 99: 40.0}, 120.0)
VERSION = ServedVersion("tiny", "1.0", "2026-07-01T07", "2026-09-30T18", 1000, 0, 200, GOOD, 0.01, GOOD)
EVALUATION = EvaluationRecord(
    "e1",
    END - 7200,
    "tiny",
    "1.0",
    "ab",
    "cd",
    210,
    0.9,
    0.86,
    0.94,
    0.9,
    0.02,
    "",
    EvaluationComparison("e0", 17, 2, 0.0007),
    True,
)
DRIFT = DriftFinding("tiny-v1.0", "drone", "sharpness", "2026-08-04T10", "2026-08-03T09", "lower", 12.0, 4.0)
COST = MonthCost(
    month="2026-09",
    currency="USD",
    whole=replace(NO_COST, amounts=Amounts(6.0, 4.0, 0.0)),
    callers={},
    measured_hours=MIN_MEASURED_HOURS,
    measured_share=1.0,
    sleep=Sleep(100, Amounts(0.0, 0.0, 0.0)),
    machines=[
        MachineScenario(Machine(vcpus, vcpus), 20 * vcpus, load, load)
        for vcpus, load in ((1.0, 1.4), (2.0, 0.7), (4.0, 0.35))
    ],
)
SAVING = replace(COST, sleep=Sleep(100, Amounts(1.0, 1.0, 0.0)))
BEST = Report(
    quarter=QUARTER,
    generated_at=QUARTER.end,
    release="0.2.0",
    months=[MONTH, replace(MONTH, name="2026-08")],
    weeks=[],
    callers=[CallerTraffic("maps", 1000, 0, 0, 120.0)],
    errors=[],
    incidents=[],
    versions=[VERSION],
    before=[VERSION],
    aliases=[],
    decided_before=frozenset(),
    verdicts=[],
    validations=[],
    drift=[],
    changes=[],
    tasks=[BACKUP],
    security=[],
    costs=[],
    names={},
    erased=0,
    unreadable=0,
    backup_days=1,
)


def with_loads(month: MonthCost, *loads: float) -> MonthCost:
    """The month with other loads on a machine of half the size, of the same size and of twice the size."""
    machines = [
        replace(machine, processor_load=load, memory_load=load)
        for machine, load in zip(month.machines, loads, strict=True)
    ]
    return replace(month, machines=machines)


def find_rules(**changes: Any) -> dict[str, Any]:
    report = with_recommendations(replace(BEST, **changes))
    return {each.rule: each.values for each in report.recommendations}


def test_nothing_is_recommended_without_a_reason() -> None:
    """A quarter without problems has no recommendations, and the page says so."""
    assert find_rules() == {}
    assert "No rule applied" in render_report(BEST, RAILWAY, Language.ENGLISH)


@pytest.mark.parametrize(
    ("changes", "rule", "value"),
    [
        ({"months": [replace(MONTH, server_errors=5)]}, "server_errors", ("percent", 0.5)),
        ({"incidents": [Incident("2026-08-01", "server_errors", "", 9, 90)]}, "incident_days", ("percent", 10.0)),
        (
            {"incidents": [FAILURE], "tasks": [replace(BACKUP, failed_at=END - 60, failures=2)]},
            "task_failed",
            ("task", "backup"),
        ),
        ({"versions": [replace(VERSION, accuracy=Interval(0.9, 0.88, 0.92))]}, "accuracy_fell", ("now", 90.0)),
        (
            {"versions": [replace(VERSION, accuracy=Interval(0.9, 0.88, 0.92))], "before": []},
            "overconfident",
            ("estimate", 97.0),
        ),
        ({"versions": [replace(VERSION, labelled=9)]}, "few_labels", ("labelled", 9)),
        ({"versions": [VERSION, replace(VERSION, version="2.0")]}, "undecided_version", ("version", "tiny-v2.0")),
        ({"validations": [EVALUATION]}, "validation_loss", ("lost", 17)),
        ({"callers": [CallerTraffic("press", 50, 40, 0, 90.0)]}, "not_aerial", ("percent", 80.0)),
        ({"drift": [DRIFT, replace(DRIFT, caller="")]}, "drift", ("day", "2026-08-03")),
        ({"months": [MONTH, replace(MONTH, name="2026-09", brightness=60.0)]}, "brightness", ("dark", 60)),
        (
            {"months": [MONTH, replace(MONTH, name="2026-09", latency_ms={50: 20.0, 95: 60.0, 99: 80.0})]},
            "slower",
            ("now", 60),
        ),
        ({"changes": [RuntimeChange("2026-08-01T00:00:00Z", "numpy", "1", "2")]}, "runtime_changed", ("name", "numpy")),
        ({"tasks": []}, "no_backup", None),
        ({"tasks": [replace(BACKUP, succeeded_at=END - 30 * 86400)]}, "old_backup", ("day", "2026-09-01")),
        ({"security": [SecurityEvents("token", "refused", 500)]}, "refused_logins", ("count", 500)),
        ({"costs": [with_loads(COST, 2.4, 1.2, 0.6)]}, "larger_machine", ("processor", 120.0)),
        ({"costs": [with_loads(COST, 0.4, 0.2, 0.1)]}, "smaller_machine", ("saved", "20.00")),
        ({"costs": [SAVING]}, "sleep", ("percent", 20.0)),
    ],
)
def test_each_rule_names_the_number_that_triggered_it(
    changes: dict[str, Any], rule: str, value: tuple[str, object] | None
) -> None:
    """Changing one value triggers exactly one rule, which can be rendered in both languages."""
    rules = find_rules(**changes)
    assert rules.keys() == {rule}
    if value is not None:
        assert rules[rule][value[0]] == value[1]
    report = with_recommendations(replace(BEST, **changes))
    for language in Language:
        assert render_report(report, RAILWAY, language)


def test_an_evaluation_after_a_change_is_enough() -> None:
    """A changed library is a reason for an evaluation only until one has succeeded."""
    evaluated = TaskRuns(Task.EVALUATE_SERVED, round(datetime(2026, 8, 2, tzinfo=UTC).timestamp()), None, 0)
    change = RuntimeChange("2026-08-01T00:00:00Z", "numpy", "1", "2")
    assert find_rules(changes=[change], tasks=[BACKUP, evaluated]) == {}


@pytest.mark.parametrize("month", [SAVING, with_loads(COST, 0.4, 0.2, 0.1)])
def test_less_than_a_week_is_not_typical(month: MonthCost) -> None:
    """A gateway that was measured for an hour is advised neither to sleep nor to move to a smaller machine."""
    assert find_rules(costs=[replace(month, measured_hours=1)]) == {}


def test_a_decision_before_the_quarter_counts() -> None:
    """A version that was promoted before the quarter is not reported as undecided."""
    versions = [VERSION, replace(VERSION, version="2.0")]
    assert find_rules(versions=versions, decided_before={"tiny-v2.0"}) == {}


def test_a_task_that_has_succeeded_since_need_not_run_again() -> None:
    """A failed task is recommended to run again only if no later run has succeeded."""
    assert find_rules(incidents=[FAILURE], tasks=[replace(BACKUP, failed_at=END - 7200, failures=2)]) == {}


def test_a_drift_that_has_ended_calls_for_nothing() -> None:
    """The recommendation about drift names only the metrics that still drift at the end of the quarter."""
    assert find_rules(drift=[replace(DRIFT, ended_at="2026-09-01T08:00:00Z")]) == {}
    later = replace(DRIFT, metric="brightness", since="2026-08-20T09", ended_at="2026-10-01T08:00:00Z")
    rules = find_rules(drift=[replace(DRIFT, ended_at="2026-09-01T08:00:00Z"), later])
    assert rules["drift"] == {"caller": "drone", "day": "2026-08-20", "metrics": ("brightness",)}


@pytest.mark.parametrize(("last_at", "end"), [("2026-08-04T18", "ongoing"), ("2026-07-20T18", "2026-07-20 18")])
def test_a_drift_ends_with_its_version(last_at: str, end: str) -> None:
    """A drift is shown as ongoing while its version predicts; otherwise it ends with the version's last prediction."""
    versions = [replace(VERSION, last_at=last_at)]
    report = replace(BEST, generated_at=datetime(2026, 8, 5, tzinfo=UTC), versions=versions, drift=[DRIFT])
    (row,) = re.findall(r"<tr><th scope=\"row\">drone</th>.*</tr>", render_report(report, RAILWAY, Language.ENGLISH))
    assert f"<td>{end}</td>" in row


def test_metrics_are_named_in_the_language_of_the_report() -> None:
    """A recommendation about drift names the metrics in the language of the report."""
    report = with_recommendations(replace(BEST, drift=[DRIFT]))
    assert "differ from the reference of the model (sharpness)" in render_report(report, RAILWAY, Language.ENGLISH)
    assert "difieren de la referencia del modelo (nitidez)" in render_report(report, RAILWAY, Language.SPANISH)


def test_backups_of_another_program() -> None:
    """With CALENDAR__BACKUP_DAYS=0 another program makes the backups, so a missing one is not reported."""
    assert find_rules(tasks=[], backup_days=0) == {}


@pytest.mark.parametrize(("age_days", "rules"), [(20, set()), (32, {"old_backup"})])
def test_a_backup_is_old_by_the_calendar(age_days: int, rules: set[str]) -> None:
    """With CALENDAR__BACKUP_DAYS=30 the report asks for a backup when the last one is more than 31 days old."""
    tasks = [replace(BACKUP, succeeded_at=END - age_days * 86400)]
    assert find_rules(tasks=tasks, backup_days=30).keys() == rules


def test_changed_entries_are_counted() -> None:
    """The page says in both languages how many entries cannot be read."""
    report = replace(BEST, unreadable=7)
    assert "were changed and cannot be read: 7." in render_report(report, RAILWAY, Language.ENGLISH)
    assert "se alteraron y no se pueden leer: 7." in render_report(report, RAILWAY, Language.SPANISH)


def test_languages_have_the_same_texts() -> None:
    """Every text exists in both languages, with the same placeholders."""
    english, spanish = (read_texts(language) for language in Language)

    def names(text: str) -> list[str]:
        return sorted(set(re.findall(r"\{(\w+)\}", text)))

    assert english.keys() == spanish.keys()
    assert {key: names(text) for key, text in english.items()} == {key: names(text) for key, text in spanish.items()}


def test_names_are_escaped() -> None:
    """Names that callers have chosen cannot add markup to tables or charts."""
    hostile = "<script>alert(1)</script>"
    report = replace(
        BEST, callers=[CallerTraffic(hostile, 50, 40, 0, None)], versions=[replace(VERSION, model=hostile)]
    )
    page = render_report(with_recommendations(report), RAILWAY, Language.ENGLISH)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_quarters() -> None:
    """A quarter has three whole months in UTC; the one before the first quarter is in the previous year."""
    assert (str(QUARTER), QUARTER.months) == ("2026Q3", ("2026-07", "2026-08", "2026-09"))
    assert parse_quarter("2027q1").previous == Quarter(2026, 4)
    assert Quarter(2026, 4).end == datetime(2027, 1, 1, tzinfo=UTC)
    assert len(list(QUARTER.days)) == 92
