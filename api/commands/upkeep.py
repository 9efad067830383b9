"""`atalaya upkeep`: remove what has expired, and records, images and log files beyond their retention.

A running gateway removes what has expired, and images, by itself, once an hour, and old log files when it begins a new
one. It never removes records.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.audit import count_older_entries, prune_audit_log
from api.commands.database import recorded_run, run_with_engine
from api.commands.gateway.log_outputs import find_log_files
from api.commands.ledger.upkeep import EarlierKeys, count_older_predictions, prune_ledger
from api.commands.options.confirmation import Yes, confirm
from api.commands.output import JsonFlag, print_json, print_table
from api.errors import CommandFailed
from api.services.personal_data.archive import open_image_archive
from api.services.personal_data.upkeep import remove_images
from api.settings import Settings, load_settings
from auth.login.upkeep import remove_expired
from monitoring.tasks.runs import Task


def upkeep(public_key: EarlierKeys = None, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Remove expired log-ins, failures, images and log files, and do what `audit prune` and `ledger prune` do."""
    settings = load_settings()
    entries = count_older_entries(settings)
    predictions = count_older_predictions(settings) if settings.ledger.enabled else 0
    question = f"Remove {entries} audit entries and {predictions} predictions beyond their retention permanently?"
    confirm(question, yes=yes, needed=entries + predictions > 0)
    with recorded_run(Task.UPKEEP):
        removed = {**run_with_engine(settings, _remove_expired), "audit_events": prune_audit_log(settings)}
        if settings.ledger.enabled:
            removed["ledger_entries"] = prune_ledger(settings, public_key or ())
        removed |= _remove_images(settings)
        removed["log_files"] = _remove_log_files(settings)
    if as_json:
        print_json({"removed": removed})
    else:
        print_table(("what", "removed"), [(name, str(count)) for name, count in removed.items()])


def _remove_images(settings: Settings) -> dict[str, int]:
    """Raises SettingsError, DatabaseUnavailable, ImageStoreUnavailable."""
    archive = open_image_archive(settings)
    if archive is None:
        return {}
    removed = run_with_engine(settings, lambda engine: remove_images(settings, engine, archive))
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
