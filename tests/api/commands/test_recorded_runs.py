"""Commands that run on a schedule record in the database when they last succeeded and failed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.cli import run
from api.commands.database import recorded_run, run_with_engine
from api.settings import Settings
from monitoring.tasks.runs import Task, TaskRuns
from monitoring.tasks.store import TaskRunStore
from tests.api.commands.ledgers import Run


def read_runs(settings: Settings) -> dict[Task, TaskRuns]:
    async def read(engine: AsyncEngine) -> dict[Task, TaskRuns]:
        return {runs.task: runs for runs in await TaskRunStore(engine).list()}

    return run_with_engine(settings, read)


def test_successes_and_failures_are_recorded(ledger: Run, environment: Settings) -> None:
    """Verifications and upkeep record their runs; verifying an export, and usage errors, are not recorded."""
    began = int(time.time())
    assert ledger("verify")[0] == 0
    assert ledger("export", "e.jsonl")[0] == 0
    assert ledger("verify", "e.jsonl", "--anchor", f"9:{'0' * 64}")[0] == 1
    assert ledger("verify", "--anchor", "x")[0] == 2
    (runs,) = read_runs(environment).values()
    assert runs.task is Task.LEDGER_VERIFY
    assert (runs.failed_at, runs.failures) == (None, 0)
    assert (runs.succeeded_at or 0) >= began
    assert ledger("verify", "--anchor", f"9:{'0' * 64}")[0] == 1
    assert run(["audit", "verify"]) == 0
    assert run(["audit", "verify", "--anchor", f"9:{'0' * 64}"]) == 1
    assert run(["upkeep", "--yes"]) == 0
    found = read_runs(environment)
    assert {task: (runs.succeeded_at is not None, runs.failures) for task, runs in found.items()} == {
        Task.LEDGER_VERIFY: (True, 1),
        Task.AUDIT_VERIFY: (True, 1),
        Task.UPKEEP: (True, 0),
    }


@pytest.mark.parametrize(
    "url", ["sqlite:///none.db", "sqlite:///empty.db", "postgresql://ana@127.0.0.1:1/none", "none"]
)
def test_a_task_needs_no_database(home: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Without a database, tables or valid settings nothing is recorded or created, but the task still runs."""
    (home / "empty.db").touch()
    monkeypatch.setenv("DATABASE_URL", url)
    with recorded_run(Task.EVALUATE):
        """A task that succeeds."""
    with pytest.raises(ZeroDivisionError), recorded_run(Task.EVALUATE):
        raise ZeroDivisionError
    assert not (home / "none.db").exists()
