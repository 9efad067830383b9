"""The tasks in the maintenance calendar of this gateway."""

from __future__ import annotations

from collections.abc import Mapping

from api.settings.gateway import Settings
from monitoring.tasks.runs import Task


def find_task_days(settings: Settings) -> Mapping[Task, int]:
    """Return the interval of each task in days, 0 for a task that this gateway does not need."""
    unneeded = set[Task]() if settings.ledger.enabled else {Task.LEDGER_VERIFY}
    if settings.model.validation_data is None:
        unneeded.add(Task.EVALUATE_SERVED)
    return {task: 0 if task in unneeded else days for task, days in settings.calendar.days.items()}
