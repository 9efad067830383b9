"""The runs of scheduled commands in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.tasks.calendar import CalendarEntry, make_calendar
from monitoring.tasks.runs import Task, TaskRuns
from monitoring.tasks.tables import task_runs
from storage.engine import dialect_insert
from storage.transactions import reading, writing

_CALENDAR_START = "calendar_start"  # a row that a migration adds


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
        # `strict`: the table is missing if this command is newer than the gateway and the database is not migrated yet.
        async with writing(self._engine, strict=True) as connection:
            await connection.execute(upsert)

    async def list(self) -> Sequence[TaskRuns]:
        """Return the runs of all tasks that this release has. Raises DatabaseUnavailable."""
        async with reading(self._engine) as connection:
            rows = (await connection.execute(select(task_runs))).all()
        known = {task.value: task for task in Task}
        return [
            TaskRuns(known[row.task], row.succeeded_at, row.failed_at, row.failures)
            for row in rows
            if row.task in known
        ]

    async def read_calendar(self, days: Mapping[Task, int]) -> Sequence[CalendarEntry]:
        """Return the calendar of the tasks that have an interval in `days`. Raises DatabaseUnavailable."""
        columns = task_runs.c
        async with reading(self._engine) as connection:
            result = await connection.execute(select(columns.succeeded_at).where(columns.task == _CALENDAR_START))
            start: int | None = result.scalar_one_or_none()
        return make_calendar(days, await self.list(), start or 0)
