"""Read and delete a database, for the tests of `atalaya backup` and `atalaya restore`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, text

from api.commands.backup.contents import list_tables
from api.settings import Settings, sqlite_file
from storage.backups.tables import dump_table, reflect_tables
from storage.engine import open_blocking_engine

T = TypeVar("T")
_CHANGED_BY_COMMANDS = {"audit_events", "audit_head", "task_runs"}


def on_database(settings: Settings, act: Callable[[Connection], T]) -> T:
    engine = open_blocking_engine(settings.database_url.get_secret_value())
    try:
        with engine.begin() as connection:
            return act(connection)
    finally:
        engine.dispose()


def read_rows(settings: Settings) -> dict[str, list[str]]:
    """The rows of all tables that the commands themselves do not change."""

    def read(connection: Connection) -> dict[str, list[str]]:
        tables = reflect_tables(connection, set(list_tables()) - _CHANGED_BY_COMMANDS)
        return {table.name: sorted(b"".join(dump_table(connection, table)).decode().splitlines()) for table in tables}

    return on_database(settings, read)


def lose_database(settings: Settings) -> None:
    path = sqlite_file(settings.database_url.get_secret_value())
    if path is not None:
        path.unlink()
        return
    on_database(settings, lambda connection: connection.execute(text("DROP SCHEMA public CASCADE")))
    on_database(settings, lambda connection: connection.execute(text("CREATE SCHEMA public")))
