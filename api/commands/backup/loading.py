"""Loads the content of a backup into an empty database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from msgspec import Struct
from sqlalchemy import Connection, Table, inspect

from api.commands.backup.archive import KEYS, Manifest, read_keys
from api.commands.backup.contents import MIGRATIONS, list_tables
from api.commands.database import describe_database
from model.registry.copies import RegistryRestore
from storage.backups.errors import BackupDamaged, BackupTooNew, RestoreTargetNotEmpty
from storage.backups.tables import load_rows, reflect_tables
from storage.engine import open_blocking_engine
from storage.errors import DatabaseUnavailable
from storage.migrations import upgrade
from storage.transactions import WRITING, database_errors

_STATEMENT_TIMEOUT_S = 3600
_TOO_NEW = "A newer release made this backup. Restore it with that release."


class Loaded(Struct):
    """The number of loaded rows, and the lines with the keys, which are empty if the backup has none."""

    rows: int = 0
    keys: bytes = b""


class _Target(Struct, frozen=True):
    connection: Connection
    tables: Mapping[str, Table]
    models: RegistryRestore | None


@contextmanager
def loading_backup(
    url: str, manifest: Manifest, members: Iterable[tuple[str, BinaryIO]], models: RegistryRestore | None
) -> Iterator[Loaded]:
    """Load everything in one transaction, and commit it when the context ends without an error.

    A damaged backup leaves the database empty, and so does a process that is killed before everything else is saved.
    The tables are created as they were when the backup was made, and brought up to date afterwards. Models appear only
    after `models.finish`. Raises DatabaseUnavailable, RegistryError, and the errors of backups.
    """
    loaded = Loaded()
    engine = open_blocking_engine(url, _STATEMENT_TIMEOUT_S).execution_options(**WRITING)
    try:
        with database_errors(engine.url), engine.begin() as connection:
            _check_empty(connection, url)
            if models is not None:
                models.begin(manifest.models)
            target = _Target(connection, _create_tables(connection, manifest), models)
            for name, content in members:
                _load(target, manifest, name, content, loaded)
            for folder in MIGRATIONS.values():
                upgrade(connection, folder)
            yield loaded
    finally:
        engine.dispose()


def _check_empty(connection: Connection, url: str) -> None:
    """Raises RestoreTargetNotEmpty."""
    inspector = inspect(connection)
    if any(inspector.has_table(name) for name in list_tables()):
        raise RestoreTargetNotEmpty(
            f"The database {describe_database(url)} already has tables. Move it away, or set DATABASE_URL to an empty "
            "one."
        )


def _create_tables(connection: Connection, manifest: Manifest) -> dict[str, Table]:
    """Return the tables, without rows, by name. Raises BackupTooNew, BackupDamaged."""
    if missing := MIGRATIONS.keys() - manifest.revisions.keys():
        raise BackupDamaged(f"The backup does not say which migrations of {min(missing)} it has. Use another backup.")
    try:
        for package, folder in MIGRATIONS.items():
            upgrade(connection, folder, manifest.revisions[package])
    except DatabaseUnavailable:
        raise BackupTooNew(_TOO_NEW) from None
    tables = reflect_tables(connection, manifest.tables)
    if len(tables) < len(manifest.tables):
        raise BackupTooNew(_TOO_NEW)
    for table in reversed(tables):
        connection.execute(table.delete())  # migrations have inserted initial rows
    return {table.name: table for table in tables}


def _load(target: _Target, manifest: Manifest, name: str, content: BinaryIO, loaded: Loaded) -> None:
    """Load one member of the archive. Raises BackupDamaged."""
    match name.split("/", 2):
        case ["tables", table, _] if table in target.tables:
            columns = manifest.tables[table]
            try:
                loaded.rows += load_rows(target.connection, target.tables[table], columns, content)
            except ValueError as error:
                raise BackupDamaged(f"The rows of {table} in the backup cannot be read. Use another backup.") from error
        case ["registry", model, path] if model in manifest.models:
            if target.models is not None:
                target.models.write(model, path, content)
        case [one] if one == KEYS and manifest.keys:
            loaded.keys = read_keys(content)
        case _:
            raise BackupDamaged(
                f"The backup contains {name!r}, which this release does not support. Use another backup."
            )
