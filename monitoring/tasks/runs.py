"""The scheduled commands, and what is known of their runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    LEDGER_VERIFY = "ledger_verify"
    AUDIT_VERIFY = "audit_verify"
    UPKEEP = "upkeep"
    EVALUATE = "evaluate"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class TaskRuns:
    """The times are seconds since 1970, None for "never"; `failures` is the number of all failed runs."""

    task: Task
    succeeded_at: int | None
    failed_at: int | None
    failures: int
