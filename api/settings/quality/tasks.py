"""The tasks that the maintenance calendar of this gateway has."""

from __future__ import annotations

from collections.abc import Mapping

from api.settings.gateway import Settings
from monitoring.tasks.runs import Task


def find_task_days(settings: Settings) -> Mapping[Task, int]:
    """Return the interval of each task in days, 0 for what this gateway does not need."""
    needless = set[Task]() if settings.ledger.enabled else {Task.LEDGER_VERIFY}
    if settings.model.validation_data is None:
        needless.add(Task.EVALUATE_SERVED)
    return {task: 0 if task in needless else days for task, days in settings.calendar.days.items()}
