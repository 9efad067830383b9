"""Reading the ledger's database in commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from api.commands.database import check_database_exists, run_with_engine
from api.settings import Settings
from auth.accounts.store import UserStore
from monitoring.ledger.transactions import ledger_errors
from storage.engine import open_blocking_engine

_STATEMENT_TIMEOUT_S = 3600  # streaming a large ledger takes long


@contextmanager
def open_snapshot(settings: Settings) -> Iterator[Connection]:
    """Open one snapshot of the database, for streaming beside writers. Raises LedgerUnavailable, DatabaseMissing."""
    url = settings.database_url.get_secret_value()
    check_database_exists(url)
    engine = open_blocking_engine(url, _STATEMENT_TIMEOUT_S)
    try:
        # SQLite's transactions always see one snapshot.
        level = "REPEATABLE READ" if engine.dialect.name == "postgresql" else "SERIALIZABLE"
        with ledger_errors(engine.url), engine.execution_options(isolation_level=level).begin() as connection:
            yield connection
    finally:
        engine.dispose()


def find_subject(settings: Settings, name: str) -> str:
    """Return the subject of the user with that name; a name without a user is taken as a subject."""
    users = run_with_engine(settings, lambda engine: UserStore(engine).find(name))
    return users[0].id if users else name
