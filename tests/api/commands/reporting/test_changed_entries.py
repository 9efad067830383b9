"""Reports on tampered entries, and decisions made before the quarter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.cli import run
from api.commands.reporting.ledger_facts import QuarterFacts, find_decided_before, find_runtime_before
from api.commands.reporting.quarter import Quarter
from model.registry.moves import Change, new_move
from monitoring.ledger.entries import EntryKind, build_event, name_model_subject
from tests.monitoring.ledger.ledgers import execute, open_database
from tests.monitoring.quality.entries import append

QUARTER = Quarter(2025, 1)
VERDICT = {"candidate": "1.1", "production": "1.0", "verdict": "hold"}
MOVE = {"id": "1", "at": "2025-02-01T09:00:00Z", "who": "ana", "why": "better", "aliases": {}}
REQUEST = {
    "at": "2025-02-01T09:30:00.000000Z",
    "principal": "ana",
    "status": 200,
    "model": {"name": "tiny", "version": "1.0"},
    "output": {},
    "image": {"brightness": 100.0},
    "runtime": {},
    "timing_us": {"infer": 2000},
}


def build(kind: EntryKind, details: Mapping[str, Any], at: object = REQUEST["at"]) -> dict[str, Any]:
    return {"at": at, **build_event(kind, name_model_subject("tiny"), details)}


@pytest.mark.parametrize(
    "document",
    [
        [1],
        REQUEST | {"at": "2024-02-01T09:30:00.000000Z"},
        REQUEST | {"at": "2025-02-01Tzz"},
        REQUEST | {"status": float("inf")},
        REQUEST | {"count": 10**400},
        REQUEST | {"image": {"brightness": float("nan")}},
        REQUEST | {"timing_us": {"infer": float("inf")}},
        build(EntryKind.CANARY_VERDICT, VERDICT | {"verdict": "maybe"}),
        build(EntryKind.CANARY_VERDICT, VERDICT, at=7),
        build(EntryKind.ALIAS_MOVED, MOVE | {"aliases": 5}),
    ],
)
def test_changed_entries_are_counted(document: Any) -> None:
    """A tampered entry is counted as unreadable, and the other entries are read."""
    facts = QuarterFacts(QUARTER)
    for each in (document, REQUEST, build(EntryKind.CANARY_VERDICT, VERDICT), build(EntryKind.ALIAS_MOVED, MOVE)):
        facts.add(json.dumps(each))
    assert (facts.unreadable, len(facts.verdicts)) == (1, 1)
    assert facts.list_callers({})[0].brightness == 100.0


@pytest.mark.parametrize(
    "change",
    [{"timing_us": {"infer": "x"}}, {"image": {"brightness": "x"}}, {"runtime": 5}, {"model": None}, {"output": 1}],
)
def test_a_changed_prediction_is_not_counted_in_part(change: dict[str, Any]) -> None:
    """A tampered prediction counts as unreadable only, not as a request or as a caller's."""
    facts = QuarterFacts(QUARTER)
    facts.add(json.dumps(REQUEST | {"status": 500, "code": "broken"} | change))
    assert (facts.unreadable, facts.list_callers({}), facts.list_errors(), facts.versions) == (1, [], [], {})
    assert sum(month.requests for month in facts.list_months()) == 0


def test_a_move_that_was_recorded_twice_is_listed_once() -> None:
    """Two entries for the same move of an alias, as an interruption may leave, make one change."""
    facts = QuarterFacts(QUARTER)
    move = new_move("ana", "better", {"production": Change("1.0", "1.1"), "candidate": Change("1.1", None)}).as_dict()
    for _ in range(2):
        facts.add(json.dumps(build(EntryKind.ALIAS_MOVED, move)))
    assert [(change.alias, change.after) for change in facts.aliases] == [("production", "1.1"), ("candidate", None)]


@pytest.mark.parametrize(
    ("days", "changes"),
    [
        (["a", "b", "a", "b", "a"], [(2, "a", "b"), (3, "b", "a"), (4, "a", "b"), (5, "b", "a")]),
        (["ab", "b", "ba", "a"], [(1, "a", "b"), (3, "b", "a")]),
        (["aba", "a"], [(1, "a", "b"), (2, "b", "a")]),
        (["ab", "ba", "ab", "ba"], [(1, "a", "b")]),
        (["b", "", "b"], []),
    ],
)
def test_each_change_of_the_runtime_is_found(days: Sequence[str], changes: Sequence[tuple[int, str, str]]) -> None:
    """A rollback is a change, too; replicas that differ for days are one change."""
    facts = QuarterFacts(QUARTER)
    for day, values in enumerate(days, 1):
        for hour, value in enumerate(values):
            at = f"2025-02-{day:02}T{hour:02}:00:00.000000Z"
            facts.add(json.dumps(REQUEST | {"at": at, "runtime": {"numpy": value}}))
    found = facts.list_runtime_changes({})
    assert [(int(each.at[8:10]), each.before, each.after) for each in found] == changes
    if days[0] != "b":
        assert facts.list_runtime_changes({"numpy": ["0"]})[0].before == "0"


def test_replicas_that_differ_before_the_quarter_are_no_change() -> None:
    """Values that were both used on the last day before the quarter do not count as a change on its first day."""
    facts = QuarterFacts(QUARTER)
    for hour, value in enumerate("ab"):
        facts.add(json.dumps(REQUEST | {"at": f"2025-01-01T{hour:02}:00:00.000000Z", "runtime": {"numpy": value}}))
    assert facts.list_runtime_changes({"numpy": ["a", "b"]}) == []
    (change,) = facts.list_runtime_changes({"numpy": ["a"]})
    assert (change.before, change.after) == ("a", "b")


@pytest.mark.usefixtures("january")
def test_a_report_on_changed_entries(tmp_path: Path) -> None:
    """The reports on a quarter of tampered entries and on the next one are written; the first says how many."""
    count = execute(f"sqlite:///{tmp_path}/cost.db", "UPDATE ledger_payloads SET document = '[1]'")
    for quarter in ("2025Q1", "2025Q2"):
        assert run(["report", "--quarter", quarter, "--out", str(tmp_path / f"{quarter}.html")]) == 0
    assert f"were changed and cannot be read: {count}." in (tmp_path / "2025Q1.html").read_text()


@pytest.mark.usefixtures("january")
def test_decisions_before_the_quarter(tmp_path: Path) -> None:
    """A version to which an alias was moved before the quarter is found, even next to a tampered entry."""
    url = f"sqlite:///{tmp_path}/cost.db"
    move = new_move("ana", "better", {"production": Change("1.0", "1.1")}).as_dict()
    subject = name_model_subject("tiny")
    moved, changed = (build_event(EntryKind.ALIAS_MOVED, subject, details) for details in (move, {"at": 5}))
    append(url, [moved, changed], datetime(2025, 3, 31, 23, tzinfo=UTC))
    with open_database(url) as engine, engine.connect() as connection:
        assert find_decided_before(connection, Quarter(2025, 2), ["tiny", "other"]) == {"tiny-v1.1"}
        assert find_decided_before(connection, QUARTER, ["tiny"]) == set()
        assert find_decided_before(connection, Quarter(2025, 2), ["other"]) == set()


@pytest.mark.usefixtures("january")
def test_the_runtime_before_the_quarter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime is that of the last prediction before the quarter, however many other entries follow it."""
    monkeypatch.setattr("api.commands.reporting.ledger_facts._CHUNK", 1)
    url = f"sqlite:///{tmp_path}/cost.db"
    prediction = {**REQUEST, "runtime": {"numpy": "2.4.6"}}
    moves = [build(EntryKind.CANARY_VERDICT, VERDICT)] * 3
    append(url, [prediction, *moves], datetime(2025, 3, 31, 23, tzinfo=UTC))
    with open_database(url) as engine, engine.connect() as connection:
        assert find_runtime_before(connection, Quarter(2025, 2)) == {"numpy": ["2.4.6"]}
