"""The maintenance calendar on the command line: lists the tasks, and runs the due ones that change nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.audit import verify_log
from api.commands.database import CommandEvent, run_with_engine
from api.commands.ledger.verify import verify_database
from api.commands.output import format_count, print_table
from api.server.exit_status import describe_error
from api.settings import Settings
from api.settings.quality.tasks import find_task_days
from monitoring.tasks.calendar import CalendarEntry
from monitoring.tasks.runs import Task
from monitoring.tasks.store import TaskRunStore

_COMMANDS: Mapping[Task, str] = {
    Task.LEDGER_VERIFY: "atalaya ledger verify",
    Task.AUDIT_VERIFY: "atalaya audit verify",
    Task.UPKEEP: "atalaya upkeep --yes",
    Task.BACKUP: "atalaya backup FILE",
    Task.EVALUATE_SERVED: "atalaya evaluate --served",
    Task.DEPENDENCY_UPDATE: "upgrade, then atalaya upkeep --done dependency_update",
    Task.KEY_ROTATION: "atalaya keys rotate",
    Task.REPORT: "atalaya report --quarter QUARTER",
    Task.RETRAIN: "atalaya retrain --data DATA --if-due",
}


class TaskResult(Struct, frozen=True):
    """What a task printed, or why it failed."""

    task: Task
    succeeded: bool
    message: str


def describe_task_failure(task: Task, error: Exception) -> TaskResult:
    return TaskResult(task, False, " ".join(describe_error(error)[1]))


def read_calendar(settings: Settings) -> Sequence[CalendarEntry]:
    """Return the tasks in the order in which they become due. Raises DatabaseUnavailable, DatabaseMissing."""
    days = find_task_days(settings)
    return run_with_engine(settings, lambda engine: TaskRunStore(engine).read_calendar(days))


def run_due_tasks(settings: Settings, earlier_keys: Sequence[str]) -> Sequence[TaskResult]:
    """Run the due tasks that change nothing: the verifications, and the evaluation of the served model.

    A task that fails does not prevent the others from running.
    """
    safe: Mapping[Task, Callable[[], str]] = {
        Task.LEDGER_VERIFY: lambda: verify_database(earlier_keys),
        Task.AUDIT_VERIFY: verify_log,
        Task.EVALUATE_SERVED: lambda: _evaluate(settings),
    }
    now = time.time()
    due = {entry.task for entry in read_calendar(settings) if entry.is_due(now)}
    return [_run(task, action) for task, action in safe.items() if task in due]


def mark_as_done(settings: Settings, name: str) -> None:
    """Record that an operator has done a task that leaves no record of its own.

    Raises BadParameter if the task is not in the calendar, DatabaseUnavailable, DatabaseMissing, AuditUnavailable.
    """
    tasks = {task.value: task for task, days in find_task_days(settings).items() if days}
    if name not in tasks:
        known = ", ".join(tasks)
        raise typer.BadParameter(f"{name} is not in the calendar, whose tasks are: {known}.", param_hint="--done")
    task = tasks[name]

    async def record(engine: AsyncEngine) -> None:
        await TaskRunStore(engine).record(task, int(time.time()), succeeded=True)

    event = CommandEvent("upkeep", "done", detail={"task": task})
    run_with_engine(settings, record, lambda _: event)


def print_calendar(entries: Iterable[CalendarEntry]) -> None:
    """Print a table of the tasks: when each was last done, when it is due, and its command."""
    now = time.time()
    print_table(
        ("task", "last done", "due", "command"),
        [
            (
                entry.task,
                _format_time(entry.succeeded_at),
                "now" if entry.is_due(now) else _format_time(entry.due_at),
                _COMMANDS[entry.task],
            )
            for entry in entries
        ],
        identifiers=3,
    )


def print_due_tasks(entries: Sequence[CalendarEntry]) -> None:
    """Print what is due, or else what is due next."""
    now = time.time()
    due = [entry for entry in entries if entry.is_due(now)]
    if due:
        print_calendar(due)
    elif entries:
        typer.echo(f"  Nothing is due until {_format_time(entries[0].due_at)} ({entries[0].task}).")


def make_document(entries: Iterable[CalendarEntry]) -> list[dict[str, Any]]:
    """Return the calendar for JSON; times are in seconds since 1970."""
    now = time.time()
    return [
        {
            "task": entry.task,
            "interval_days": entry.interval_days,
            "succeeded_at": entry.succeeded_at,
            "failed_at": entry.failed_at,
            "due_at": entry.due_at,
            "is_due": entry.is_due(now),
            "command": _COMMANDS[entry.task],
        }
        for entry in entries
    ]


def _run(task: Task, action: Callable[[], str]) -> TaskResult:
    try:
        return TaskResult(task, True, action())
    except Exception as error:
        return describe_task_failure(task, error)


def _evaluate(settings: Settings) -> str:
    from api.commands.models.quality.served import check_loss, evaluate_served  # loads the model runtime

    result = evaluate_served(settings, None, accept_loss=False)
    check_loss(result)
    record = result.record
    return f"{record.full_name} has an accuracy of {record.accuracy:.4f} on {format_count(record.n, 'image')}."


def _format_time(seconds: int | None) -> str:
    return "never" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
