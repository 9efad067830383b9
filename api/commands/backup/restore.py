"""`atalaya restore`: fill an empty database, and a registry of models, from a backup file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from api.commands.backup.archive import read_archive
from api.commands.backup.keys import open_keys_file
from api.commands.backup.loading import loading_backup
from api.commands.backup.options import PassphraseFile, PassphraseStdin, read_passphrase
from api.commands.backup.verification import verify_restored
from api.commands.ledger.upkeep import EarlierKeys
from api.commands.output import JsonFlag, format_count, format_entries, print_json
from api.errors import CommandFailed
from api.services.registry import open_registry
from api.settings import Settings, load_settings
from model.registry.copies import RegistryRestore
from monitoring.chains.signing import Verifier


def restore(
    file: Annotated[
        Path, typer.Argument(help="A file that `atalaya backup` wrote; - for standard input, after the passphrase.")
    ],
    keys_to: Annotated[
        Path | None, typer.Option(help="Write the keys in the backup to this new file, as lines for .env.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_stdin: PassphraseStdin = False,
    public_key: EarlierKeys = None,
    as_json: JsonFlag = False,
) -> None:
    """Restore a backup into an empty database, and verify the audit log and the ledger."""
    Verifier(public_key or ())  # rejects an invalid key before anything is restored
    passphrase = read_passphrase(passphrase_file, from_stdin=passphrase_stdin)
    settings = load_settings()
    models = _open_registry(settings)
    with _open_backup(file) as source, ExitStack() as keys:
        keys_file = keys.enter_context(open_keys_file(keys_to))
        manifest, members = read_archive(source, passphrase)
        if keys_to is not None and not manifest.keys:
            raise CommandFailed("The backup contains no keys. Restore it without --keys-to.")
        with loading_backup(settings.database_url.get_secret_value(), manifest, members, models) as loaded:
            # The database comes last: once it has tables, the restore cannot be repeated.
            if keys_file is not None:
                keys_file.write(loaded.keys)
            added = models.finish() if models else []
            keys.close()
    audit, ledger = verify_restored(settings, loaded.keys, public_key or ())
    left_out = sorted(manifest.models.keys() - set(added))
    if as_json:
        print_json(
            {
                "made_at": manifest.made_at,
                "release": manifest.release,
                "rows": loaded.rows,
                "models": added,
                "models_left_out": left_out,
                "audit_entries": audit,
                "ledger_entries": ledger,
            }
        )
        return
    rows = format_count(loaded.rows, "row")
    typer.echo(f"Restored {rows}. The backup was made at {manifest.made_at} by release {manifest.release}.")
    typer.echo(f"Audit log: {format_entries(audit)}, unchanged. {_describe_ledger(ledger)}")
    if added:
        typer.echo(f"Models restored to the registry: {', '.join(added)}.")
    if left_out:
        reason = "no MODEL__REGISTRY is set" if models is None else "the registry already has them"
        typer.echo(f"Models left out, because {reason}: {', '.join(left_out)}.")


def _describe_ledger(entries: int | None) -> str:
    if entries is None:
        return "The ledger was not verified: set LEDGER__SIGNING_KEY, and run `atalaya ledger verify`."
    return f"Ledger: {format_entries(entries)}, unchanged."


def _open_registry(settings: Settings) -> RegistryRestore | None:
    """Return the registry that models are restored to; None without one, and for the mirror of an MLflow registry."""
    if settings.model.registry_folder is None or settings.model.mlflow_url is not None:
        return None
    return RegistryRestore(open_registry(settings))


@contextmanager
def _open_backup(path: Path) -> Iterator[BinaryIO]:
    """Raises CommandFailed."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file
