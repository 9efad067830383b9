"""The record of scheduled commands."""

from __future__ import annotations

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.tasks.runs import Task, TaskRuns
from monitoring.tasks.store import TaskRunStore
from monitoring.tasks.tables import task_runs
from storage.transactions import writing


async def test_the_last_success_and_failure_are_kept(engine: AsyncEngine) -> None:
    """Each task has the time of its last success and of its last failure, and the number of all failures."""
    store = TaskRunStore(engine)
    assert await store.list() == []
    for at, succeeded in ((10, True), (20, False), (30, True), (40, False)):
        await store.record(Task.LEDGER_VERIFY, at, succeeded=succeeded)
    await store.record(Task.UPKEEP, 50, succeeded=True)
    runs = {run.task: run for run in await store.list()}
    assert runs == {
        Task.LEDGER_VERIFY: TaskRuns(Task.LEDGER_VERIFY, 30, 40, 2),
        Task.UPKEEP: TaskRuns(Task.UPKEEP, 50, None, 0),
    }


async def test_tasks_of_a_newer_release_are_ignored(engine: AsyncEngine) -> None:
    """A task that is unknown to this release is left out, so that the metrics' label values stay bounded."""
    async with writing(engine) as connection:
        await connection.execute(insert(task_runs).values(task="invented", succeeded_at=1, failures=0))
    assert await TaskRunStore(engine).list() == []
