"""The ledger's database, for commands that stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.commands.database import run_with_engine
from api.errors import CommandFailed
from api.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PATIENCE_S = 3600  # a statement of a long stream may take its time


@contextmanager
def ledger_view(settings: Settings) -> Iterator[Connection]:
    """One view of the database, which writers do not disturb. Raises LedgerUnavailable, CommandFailed."""
    from monitoring.ledger.transactions import ledger_errors
    from storage.engine import open_blocking_engine, sqlite_path

    url = settings.database_url.get_secret_value()
    path = sqlite_path(url)
    if path is not None and not path.exists():  # SQLite would make one
        raise CommandFailed(f"DATABASE_URL: there is no file {path}.")
    engine = open_blocking_engine(url, _PATIENCE_S)
    try:
        # SQLite's transactions always see one state of the database.
        level = "REPEATABLE READ" if engine.dialect.name == "postgresql" else "SERIALIZABLE"
        with ledger_errors(), engine.execution_options(isolation_level=level).begin() as connection:
            yield connection
    finally:
        engine.dispose()


def principal_named(settings: Settings, name: str) -> str:
    """The subject of the user of that name; what names no user is a subject itself."""
    from auth.accounts.store import UserStore

    found = run_with_engine(settings, lambda engine: UserStore(engine).find(name))
    return found[0].id if found else name
