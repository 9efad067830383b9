"""When the tasks of the maintenance calendar are due."""

from __future__ import annotations

import time

import pytest

import auth
import monitoring
from monitoring.tasks.calendar import CalendarEntry, make_calendar
from monitoring.tasks.runs import Task, TaskRuns
from monitoring.tasks.store import TaskRunStore
from storage.engine import open_engine
from storage.migrations import migrate

DAY = 86_400


def test_tasks_are_due_one_interval_after_they_succeeded() -> None:
    """A task is due one interval after its last success, or after the calendar's start if it never succeeded."""
    days = {Task.BACKUP: 1, Task.REPORT: 92, Task.AUDIT_VERIFY: 2, Task.RETRAIN: 0}
    runs = [TaskRuns(Task.BACKUP, 5 * DAY, 9 * DAY, 1), TaskRuns(Task.AUDIT_VERIFY, None, 3 * DAY, 1)]
    assert make_calendar(days, runs, start=DAY) == [
        CalendarEntry(Task.AUDIT_VERIFY, 2, None, 3 * DAY, 3 * DAY),
        CalendarEntry(Task.BACKUP, 1, 5 * DAY, 9 * DAY, 6 * DAY),
        CalendarEntry(Task.REPORT, 92, None, None, 93 * DAY),
    ]


@pytest.mark.parametrize(("hours", "is_due"), [(20, False), (23.9, True), (24, True), (100, True)])
def test_a_daily_job_finds_its_task_due(hours: float, is_due: bool) -> None:
    """A task is due a tenth of its interval early, so that a daily job that starts slightly early still runs it."""
    (entry,) = make_calendar({Task.BACKUP: 1}, [TaskRuns(Task.BACKUP, 0, None, 0)], start=0)
    assert entry.is_due(hours * 3600) is is_due


async def test_the_calendar_begins_when_the_tables_are_made(database_url: str) -> None:
    """On a new installation a task is due one interval after the tables were created."""
    engine = open_engine(database_url)
    await migrate(engine, auth.MIGRATIONS, monitoring.MIGRATIONS)
    (entry,) = await TaskRunStore(engine).read_calendar({Task.KEY_ROTATION: 90})
    assert abs(entry.due_at - time.time() - 90 * DAY) < 600
    assert await TaskRunStore(engine).list() == []
    await engine.dispose()
