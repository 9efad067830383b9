"""`atalaya backup`: one file with everything that a gateway cannot recreate."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from msgspec import Struct
from sqlalchemy import Connection

from api.commands.backup.archive import KEYS, ArchiveWriter, Manifest, writing_archive
from api.commands.backup.contents import MIGRATIONS, list_tables
from api.commands.backup.files import open_new_file
from api.commands.backup.keys import format_keys
from api.commands.backup.options import PassphraseFile, PassphraseStdin, check_passphrase, read_passphrase
from api.commands.database import CommandEvent, migrate_database, recorded_run, write_event
from api.commands.group import reporting_write_errors
from api.commands.ledger.database import open_snapshot
from api.commands.output import JsonFlag, format_count, print_json
from api.errors import CommandFailed
from api.services.registry import open_registry
from api.settings import Settings, load_settings
from model.registry.copies import ModelCopy, read_models
from monitoring.tasks.runs import Task
from storage.backups.tables import dump_table, reflect_tables
from storage.migrations import read_revision


class BackupRequest(Struct, frozen=True):
    """What a backup contains besides the database, and the passphrase that encrypts it."""

    models: Sequence[ModelCopy] = ()
    keys: bytes | None = None
    passphrase: str | None = None


def backup(
    file: Annotated[Path, typer.Argument(help="The new file; - for standard output.")],
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Include the keys of .env; needs a passphrase.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_stdin: PassphraseStdin = False,
    as_json: JsonFlag = False,
) -> None:
    """Back up the database, the registry of models and, if requested, the keys. The gateway may be running."""
    passphrase = read_passphrase(passphrase_file, from_stdin=passphrase_stdin)
    if passphrase is not None:
        check_passphrase(passphrase)
    elif with_keys:
        raise typer.BadParameter("--with-keys needs a passphrase: use --passphrase-file or --passphrase-stdin.")
    to_stdout = str(file) == "-"
    if to_stdout and as_json:
        raise typer.BadParameter("--json also writes to standard output. Name a file.")
    if to_stdout and sys.stdout.isatty():
        raise CommandFailed("A backup is binary data. Name a file, or redirect standard output.")
    settings = load_settings()
    with recorded_run(Task.BACKUP):
        rows = _back_up(settings, file, passphrase, with_keys=with_keys)
        event = CommandEvent("backup", "created", detail={"keys": "included" if with_keys else "excluded"})
        write_event(settings, event)
    if as_json:
        encrypted = passphrase is not None
        print_json({"file": str(file), "rows": rows, "encrypted": encrypted, "keys": with_keys})
    else:
        kind = "Encrypted backup" if passphrase is not None else "Backup"
        keys = "with the keys" if with_keys else "without keys"
        typer.echo(f"{kind} of {format_count(rows, 'row')}, {keys}: {file}", err=to_stdout)


def _back_up(settings: Settings, file: Path, passphrase: str | None, *, with_keys: bool) -> int:
    """Return the number of rows. Raises CommandFailed, LedgerUnavailable, DatabaseMissing."""
    migrate_database(settings)
    in_folder = settings.model.registry_folder is not None and settings.model.mlflow_url is None
    # Read before the rows: an alias move stays in this state until the ledger records it, so none can be missed.
    models = read_models(open_registry(settings)) if in_folder else []
    request = BackupRequest(models, format_keys(settings) if with_keys else None, passphrase)
    with _open_target(file) as target, open_snapshot(settings) as connection:
        return write_backup(target, connection, request)


def write_backup(target: BinaryIO, connection: Connection, request: BackupRequest) -> int:
    """Write the rows visible to the connection's transaction, and what is requested. Returns the number of rows.

    Raises CommandFailed, OSError.
    """
    tables = reflect_tables(connection, list_tables())
    manifest = Manifest(
        release=version("atalaya"),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        revisions={package: read_revision(connection, folder) for package, folder in MIGRATIONS.items()},
        tables={table.name: [column.name for column in table.columns] for table in tables},
        models={model.home.name: model.serialise_state().decode() for model in request.models},
        keys=request.keys is not None,
    )
    rows = 0
    with writing_archive(target, request.passphrase) as archive:
        archive.add_manifest(manifest)
        if request.keys is not None:
            archive.add(KEYS, request.keys)
        for model in request.models:
            _add_model(archive, model)
        for table in tables:
            for number, batch in enumerate(dump_table(connection, table), 1):
                archive.add(f"tables/{table.name}/{number:06}.jsonl", batch)
                rows += batch.count(b"\n")
    return rows


def _add_model(archive: ArchiveWriter, model: ModelCopy) -> None:
    """Raises CommandFailed."""
    for name, path in model.list_files():
        try:
            archive.add_file(f"registry/{model.home.name}/{name}", path)
        except OSError as error:
            raise CommandFailed(f"MODEL__REGISTRY: {path} cannot be read: {error.strerror}.") from None


@contextmanager
def _open_target(path: Path) -> Iterator[BinaryIO]:
    """Open the new file, or standard output, and flush it when the context ends.

    Raises CommandFailed, BrokenPipeError.
    """
    if str(path) != "-":
        with open_new_file(path) as file:
            yield file
        return
    # Not sys.stdout.buffer: after a failed write, closing this file fails too, and `reporting_write_errors` reports
    # that error. Otherwise `_add_model` would report that the model's file cannot be read.
    with reporting_write_errors("Standard output"), open(sys.stdout.fileno(), "wb", closefd=False) as file:
        yield file
