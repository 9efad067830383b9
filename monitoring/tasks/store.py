"""The runs of scheduled commands in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.tasks.runs import Task, TaskRuns
from monitoring.tasks.tables import task_runs
from storage.engine import dialect_insert
from storage.transactions import reading, writing


class TaskRunStore:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def record(self, task: Task, at: int, *, succeeded: bool) -> None:
        """Record a run that ended at `at`, in seconds since 1970. Raises DatabaseUnavailable."""
        failed = int(not succeeded)
        end = {"succeeded_at": at} if succeeded else {"failed_at": at}
        insertion = dialect_insert(task_runs, self._engine.dialect).values(task=task.value, failures=failed, **end)
        upsert = insertion.on_conflict_do_update(
            index_elements=[task_runs.c.task], set_={"failures": task_runs.c.failures + failed, **end}
        )
        # Strict: the table is missing where a command is newer than the gateway, which has not migrated yet.
        async with writing(self._engine, strict=True) as connection:
            await connection.execute(upsert)

    async def list(self) -> Sequence[TaskRuns]:
        """Return the runs of all tasks that this release knows. Raises DatabaseUnavailable."""
        async with reading(self._engine) as connection:
            rows = (await connection.execute(select(task_runs))).all()
        known = {task.value: task for task in Task}
        return [
            TaskRuns(known[row.task], row.succeeded_at, row.failed_at, row.failures)
            for row in rows
            if row.task in known
        ]
