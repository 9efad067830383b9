"""`atalaya upkeep`: remove what has expired, run the tasks of the calendar that change nothing, and print what is due.

A running gateway itself removes expired rows and images once an hour, and old log files when it begins a new one. It
never removes records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from msgspec.structs import asdict
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.audit import count_older_entries, prune_audit_log
from api.commands.calendar import (
    TaskResult,
    describe_task_failure,
    make_document,
    mark_as_done,
    print_calendar,
    print_due_tasks,
    read_calendar,
    run_due_tasks,
)
from api.commands.database import record_run, run_with_engine
from api.commands.gateway.log_outputs import find_log_files
from api.commands.ledger.upkeep import EarlierKeys, count_older_predictions, prune_ledger
from api.commands.options.confirmation import Yes, confirm
from api.commands.output import JsonFlag, format_count, format_entries, print_json, print_table
from api.errors import CommandFailed
from api.services.personal_data.archive import compute_retention_cutoff, open_image_archive
from api.services.personal_data.store_thread import StoreThread
from api.services.personal_data.upkeep import remove_images
from api.settings import Settings, load_settings
from auth.accounts.store import UserStore
from auth.login.upkeep import remove_expired
from monitoring.tasks.runs import Task

DueFlag = Annotated[bool, typer.Option("--due", help="Only print the maintenance calendar.")]
DoneOption = Annotated[
    str | None,
    typer.Option("--done", metavar="TASK", help="Only record that you have done this task of the calendar."),
]


def upkeep(
    public_key: EarlierKeys = None,
    due: DueFlag = False,
    done: DoneOption = None,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove expired entries, as `audit prune` and `ledger prune` do, then run the checks that are due."""
    settings = load_settings()
    if done is not None:
        mark_as_done(settings, done)
    if not due and done is None:
        _remove_and_run(settings, public_key or (), yes, as_json)
        return
    entries = read_calendar(settings)
    if as_json:
        print_json({"calendar": make_document(entries)})
    else:
        print_calendar(entries)


def _remove_and_run(settings: Settings, earlier_keys: Sequence[str], yes: bool, as_json: bool) -> None:
    """Do all removals and due tasks, then raise CommandFailed if any of them has failed."""
    removed, failed = _remove(settings, earlier_keys, yes)
    results = [*failed, *run_due_tasks(settings, earlier_keys)]
    entries = read_calendar(settings)
    if as_json:
        print_json({"removed": removed, "ran": [asdict(each) for each in results], "calendar": make_document(entries)})
    else:
        print_table(("what", "removed"), [(name, str(count)) for name, count in removed.items()])
        for result in results:
            if result.succeeded:
                typer.echo(f"  {result.task}: {result.message}")
        print_due_tasks(entries)
    failures = [f"{each.task}: {each.message}" for each in results if not each.succeeded]
    if failures:
        raise CommandFailed(" ".join(failures))


def _remove(
    settings: Settings, earlier_keys: Sequence[str], yes: bool
) -> tuple[Mapping[str, int], Sequence[TaskResult]]:
    """Remove what has expired, after a confirmation. A removal that fails does not prevent the others.

    Returns how many of each were removed, and the failures. Raises CommandFailed, Abort.
    """
    entries = count_older_entries(settings)
    predictions = count_older_predictions(settings) if settings.ledger.enabled else 0
    expired = f"{format_entries(entries, 'audit')} and {format_count(predictions, 'prediction')}"
    confirm(f"Remove {expired} beyond their retention permanently?", yes=yes, needed=entries + predictions > 0)
    removals: list[Callable[[], Mapping[str, int]]] = [
        lambda: run_with_engine(settings, _remove_expired),
        lambda: {"audit_events": prune_audit_log(settings)},
        lambda: {"ledger_entries": prune_ledger(settings, earlier_keys)} if settings.ledger.enabled else {},
        lambda: _remove_images(settings),
        lambda: {"log_files": _remove_log_files(settings)},
    ]
    removed, failed = dict[str, int](), list[TaskResult]()
    for remove in removals:
        try:
            removed |= remove()
        except Exception as error:
            failed.append(describe_task_failure(Task.UPKEEP, error))
    record_run(Task.UPKEEP, succeeded=not failed)
    return removed, failed


def _remove_images(settings: Settings) -> dict[str, int]:
    """Raises SettingsError, DatabaseUnavailable, ImageStoreUnavailable."""
    archive = open_image_archive(settings)
    if archive is None:
        return {}
    store = StoreThread(archive)
    try:
        removed = run_with_engine(
            settings, lambda engine: remove_images(UserStore(engine), store, compute_retention_cutoff(settings))
        )
    finally:
        store.close()
    return {"images_disallowed": removed.disallowed, "images_old": removed.old}


def _remove_log_files(settings: Settings) -> int:
    """Raises CommandFailed."""
    files = find_log_files(settings)
    try:
        return files.remove_old(datetime.now(UTC).date()) if files else 0
    except OSError as error:
        raise CommandFailed(f"LOGS__FILE: old files cannot be removed: {error.strerror}.") from None


async def _remove_expired(engine: AsyncEngine) -> Mapping[str, int]:
    return await remove_expired(engine, datetime.now(UTC))
