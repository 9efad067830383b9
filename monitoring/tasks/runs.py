"""The scheduled commands, and the summary of their runs."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Task(StrEnum):
    LEDGER_VERIFY = "ledger_verify"
    AUDIT_VERIFY = "audit_verify"
    UPKEEP = "upkeep"
    EVALUATE = "evaluate"
    EVALUATE_SERVED = "evaluate_served"
    BACKUP = "backup"
    DRIFT = "drift"
    RETRAIN = "retrain"
    DATASET = "dataset"
    COST = "cost"
    REPORT = "report"
    KEY_ROTATION = "key_rotation"
    DEPENDENCY_UPDATE = "dependency_update"


class TaskRuns(Struct, frozen=True):
    """The times are seconds since 1970, None for "never"; `failures` is the number of all failed runs."""

    task: Task
    succeeded_at: int | None
    failed_at: int | None
    failures: int
