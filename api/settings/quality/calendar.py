"""The settings CALENDAR__…"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from api.settings.fields import SettingsGroup
from monitoring.tasks.runs import Task


def _days(default: int, description: str) -> int:
    days: int = Field(default, ge=0, le=3650, description=description)
    return days


class CalendarSettings(SettingsGroup, title="Calendar"):
    """After how many days each task is due again, in the [maintenance calendar](quality/calendar.md). 0: never."""

    verification_days: int = _days(1, "`atalaya ledger verify` and `atalaya audit verify`; `atalaya upkeep` runs both.")
    pruning_days: int = _days(1, "`atalaya upkeep`.")
    backup_days: int = _days(1, "`atalaya backup`. 0 if another program makes the backups.")
    evaluation_days: int = _days(
        7, "`atalaya evaluate --served`, if `MODEL__VALIDATION_DATA` is set; `atalaya upkeep` runs it."
    )
    dependency_update_days: int = _days(30, "An upgrade of the gateway and its libraries.")
    key_rotation_days: int = _days(90, "`atalaya keys rotate`.")
    report_days: int = _days(92, "The quarterly report.")
    retraining_days: int = _days(120, "A search for a better model.")

    @property
    def days(self) -> Mapping[Task, int]:
        """The interval of each task in days, 0 for one that is not in the calendar."""
        return {
            Task.LEDGER_VERIFY: self.verification_days,
            Task.AUDIT_VERIFY: self.verification_days,
            Task.UPKEEP: self.pruning_days,
            Task.BACKUP: self.backup_days,
            Task.EVALUATE_SERVED: self.evaluation_days,
            Task.DEPENDENCY_UPDATE: self.dependency_update_days,
            Task.KEY_ROTATION: self.key_rotation_days,
            Task.REPORT: self.report_days,
            Task.RETRAIN: self.retraining_days,
        }
