"""Removes old drift states and findings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.transactions import ledger_errors
from monitoring.quality.drift.store import DriftStore
from storage.transactions import WRITING

KEEP = timedelta(days=30)
"""The state of a caller is removed this long after its last prediction."""


def remove_old(engine: Engine, keep_days: int) -> None:
    """Remove the states of callers that no longer send anything, and findings that ended more than `keep_days` ago.

    Raises LedgerUnavailable.
    """
    now = datetime.now(UTC)
    with ledger_errors(engine.url), engine.execution_options(**WRITING).begin() as connection:
        store = DriftStore(connection)
        store.remove_unseen(format_timestamp(now - KEEP))
        store.remove_ended(format_timestamp(now - timedelta(days=keep_days)))
