"""`atalaya upkeep`: the maintenance calendar, and the tasks that the command runs."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from api.cli import run
from api.commands.database import run_with_engine
from api.services.personal_data.archive import open_image_archive
from api.settings import Settings, load_settings
from monitoring.audit.events import new_event
from monitoring.audit.store import AuditStore
from monitoring.chains.ids import new_id
from monitoring.ledger.tables import ledger_entries
from monitoring.tasks.runs import Task
from monitoring.tasks.store import TaskRunStore
from storage.transactions import writing

Upkeep = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def upkeep(environment: Settings, capsys: pytest.CaptureFixture[str]) -> Upkeep:
    """Run `atalaya upkeep`; returns its exit status, standard output and standard error."""
    assert environment.ledger_key()

    def run_upkeep(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(["upkeep", *arguments])
        return status, *capsys.readouterr()

    return run_upkeep


def record_long_ago(settings: Settings, *tasks: Task) -> None:
    async def record(engine: AsyncEngine) -> None:
        for task in tasks:
            await TaskRunStore(engine).record(task, int(time.time()) - 400 * 86_400, succeeded=True)

    run_with_engine(settings, record)


def test_nothing_is_due_on_a_new_installation(upkeep: Upkeep) -> None:
    """`--due` lists the tasks, none of which is due; without a validation set there is no evaluation."""
    status, out, _ = upkeep("--due", "--json")
    calendar = {entry["task"]: entry for entry in json.loads(out)["calendar"]}
    assert status == 0
    assert list(calendar)[-1] == "retrain"
    assert "evaluate_served" not in calendar
    assert not any(entry["is_due"] or entry["succeeded_at"] for entry in calendar.values())
    assert calendar["backup"]["command"] == "atalaya backup FILE"
    assert "backup " in upkeep("--due")[1]


def test_due_verifications_are_run(upkeep: Upkeep, environment: Settings) -> None:
    """With `--yes`, upkeep runs the verifications that are due, and lists the tasks that need a person."""
    record_long_ago(environment, Task.LEDGER_VERIFY, Task.AUDIT_VERIFY, Task.KEY_ROTATION)
    status, out, _ = upkeep("--yes", "--json")
    document = json.loads(out)
    assert status == 0
    assert [(each["task"], each["succeeded"]) for each in document["ran"]] == [
        ("ledger_verify", True),
        ("audit_verify", True),
    ]
    assert document["ran"][0]["message"].startswith("6 entries of 1 writer, unchanged.")
    assert document["removed"]["audit_events"] == 0
    assert [entry["task"] for entry in document["calendar"] if entry["is_due"]] == ["key_rotation"]
    status, out, _ = upkeep("--yes")
    assert status == 0
    assert "atalaya keys rotate" in out
    assert "ledger_verify:" not in out


def change_times(settings: Settings, at: str) -> None:
    """Change the time of all entries of the ledger, as someone with write access to the database could."""

    async def change(engine: AsyncEngine) -> None:
        async with writing(engine) as connection:
            await connection.execute(update(ledger_entries).values(at=at))

    run_with_engine(settings, change)


def test_a_failed_verification_fails_the_command(upkeep: Upkeep, environment: Settings) -> None:
    """When the ledger was changed, the other tasks still run, the failure is recorded, and the exit status is 1."""
    record_long_ago(environment, Task.LEDGER_VERIFY, Task.AUDIT_VERIFY)

    change_times(environment, "2026-01-01T00:00:00.000000Z")
    status, out, error = upkeep("--yes")
    assert status == 1
    assert error.startswith("error: ledger_verify: ")
    assert "audit_verify: " in out
    runs = {each.task: each for each in run_with_engine(environment, lambda engine: TaskRunStore(engine).list())}
    assert runs[Task.LEDGER_VERIFY].failures == 1
    assert runs[Task.UPKEEP].failures == 0


def test_records_are_pruned_by_their_retention(upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep removes the audit entries and predictions that are older than their retention, and counts each kind."""
    old = replace(new_event("user", "disabled", actor="olga"), at=datetime(2020, 1, 1, tzinfo=UTC))
    run_with_engine(load_settings(), lambda engine: AuditStore(engine).append([old]))
    removed = []
    for days in ("10000", "30"):
        monkeypatch.setenv("MONITORING__AUDIT_KEEP_DAYS", days)
        monkeypatch.setenv("LEDGER__KEEP_DAYS", days if days == "10000" else "1")
        status, out, error = upkeep("--yes", "--json")
        assert (status, error) == (0, "")
        removed.append([json.loads(out)["removed"][kind] for kind in ("audit_events", "ledger_entries")])
    assert removed == [[0, 0], [1, 6]]


def test_kept_images_are_removed(upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Upkeep removes kept images whose owners do not allow them."""
    monkeypatch.setenv("IMAGES__URL", f"file://{tmp_path}/images")
    monkeypatch.setenv("IMAGES__KEY", b64encode(bytes(32)).decode())
    archive = open_image_archive(load_settings())
    assert archive is not None
    archive.keep(new_id(), new_id(), b"image")
    status, out, error = upkeep("--yes", "--json")
    assert (status, error) == (0, "")
    assert json.loads(out)["removed"]["images_disallowed"] == 1


def test_a_failed_removal_hides_no_verification(upkeep: Upkeep, environment: Settings) -> None:
    """When a changed ledger cannot be pruned, other removals and the verifications run; both failures are recorded."""
    record_long_ago(environment, Task.LEDGER_VERIFY, Task.AUDIT_VERIFY)

    change_times(environment, "2001-01-01T00:00:00.000000Z")
    status, out, error = upkeep("--yes", "--json")
    document = json.loads(out)
    assert status == 1
    assert [(each["task"], each["succeeded"]) for each in document["ran"]] == [
        ("upkeep", False),
        ("ledger_verify", False),
        ("audit_verify", True),
    ]
    assert "upkeep: " in error
    assert "log_files" in document["removed"]
    runs = {each.task: each for each in run_with_engine(environment, lambda engine: TaskRunStore(engine).list())}
    assert (runs[Task.UPKEEP].failures, runs[Task.LEDGER_VERIFY].failures) == (1, 1)


def test_tasks_of_a_person_are_marked_as_done(
    upkeep: Upkeep, environment: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--done` records a run in the calendar and the audit log; for any other name, it lists the calendar's tasks."""
    record_long_ago(environment, Task.DEPENDENCY_UPDATE)
    status, out, _ = upkeep("--done", "dependency_update", "--json")
    calendar = {entry["task"]: entry for entry in json.loads(out)["calendar"]}
    assert status == 0
    assert not calendar["dependency_update"]["is_due"]
    assert run(["audit", "--event", "upkeep", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["outcome"], entry["detail"]) == ("done", {"task": "dependency_update"})
    for name in ("evaluate_served", "cost", "holiday"):
        status, _, error = upkeep("--done", name)
        assert (status, error) == (
            2,
            f"error: Invalid value for --done: {name} is not in the calendar, whose tasks are: ledger_verify, "
            "audit_verify, upkeep, backup, dependency_update, key_rotation, report, retrain.\n",
        )


def test_a_rotated_signing_key_is_in_the_calendar(upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    """`atalaya keys rotate` records itself; an interval of 0 takes a task out of the calendar."""
    monkeypatch.setenv("CALENDAR__BACKUP_DAYS", "0")
    assert run(["secrets", "init"]) == 0
    assert run(["keys", "rotate", "--yes"]) == 0
    calendar = {entry["task"]: entry for entry in json.loads(upkeep("--due", "--json")[1])["calendar"]}
    assert calendar["key_rotation"]["succeeded_at"]
    assert "backup" not in calendar
