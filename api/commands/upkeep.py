"""`atalaya upkeep`: remove what has expired, and records beyond their retention.

A running gateway removes what has expired by itself, once an hour. It never removes records.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.audit import count_older_entries, prune_audit_log
from api.commands.database import recorded_run, run_with_engine
from api.commands.ledger.upkeep import EarlierKeys, count_older_predictions, prune_ledger
from api.commands.options.confirmation import Yes, confirm
from api.commands.output import JsonFlag, print_json, print_table
from api.settings import load_settings
from auth.login.upkeep import remove_expired
from monitoring.tasks.runs import Task


def upkeep(public_key: EarlierKeys = None, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Remove expired log-ins and failures, and do what `audit prune` and `ledger prune` do."""
    settings = load_settings()
    entries = count_older_entries(settings)
    predictions = count_older_predictions(settings) if settings.ledger.enabled else 0
    question = f"Remove {entries} audit entries and {predictions} predictions beyond their retention permanently?"
    confirm(question, yes=yes, needed=entries + predictions > 0)
    with recorded_run(Task.UPKEEP):
        removed = {**run_with_engine(settings, _remove_expired), "audit_events": prune_audit_log(settings)}
        if settings.ledger.enabled:
            removed["ledger_entries"] = prune_ledger(settings, public_key or ())
    if as_json:
        print_json({"removed": removed})
    else:
        print_table(("table", "rows removed"), [(name, str(count)) for name, count in removed.items()])


async def _remove_expired(engine: AsyncEngine) -> Mapping[str, int]:
    return await remove_expired(engine, datetime.now(UTC))
