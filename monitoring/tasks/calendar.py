"""The maintenance calendar: when each scheduled task is due again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from monitoring.tasks.runs import Task, TaskRuns

_DAY_S = 86_400
_EARLY = 0.1  # share of the interval: a job that starts at the same time each day may otherwise be seconds too early


class CalendarEntry(Struct, frozen=True):
    """When a task last succeeded and failed, and when it is due; seconds since 1970, None for "never"."""

    task: Task
    interval_days: int
    succeeded_at: int | None
    failed_at: int | None
    due_at: int

    def is_due(self, now: float) -> bool:
        return now >= self.due_at - _EARLY * self.interval_days * _DAY_S


def make_calendar(days: Mapping[Task, int], runs: Iterable[TaskRuns], start: int) -> Sequence[CalendarEntry]:
    """Return the tasks with an interval, `days` by task, in the order in which they are due.

    A task is due one interval after its last success; one that never succeeded, one interval after `start`.
    """
    runs_by_task = {each.task: each for each in runs}
    entries = []
    for task, interval in days.items():
        if interval:
            past = runs_by_task.get(task, TaskRuns(task, None, None, 0))
            last = start if past.succeeded_at is None else past.succeeded_at
            entries.append(CalendarEntry(task, interval, past.succeeded_at, past.failed_at, last + interval * _DAY_S))
    return sorted(entries, key=lambda entry: entry.due_at)
