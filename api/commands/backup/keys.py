"""The keys in a backup: lines as in .env."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import BinaryIO

from dotenv import dotenv_values

from api.commands.backup.files import open_new_file
from api.commands.secrets import format_signing_key
from api.settings import Settings

_LEDGER_KEY = "LEDGER__SIGNING_KEY"


def format_keys(settings: Settings) -> bytes:
    """Return the lines for the keys that are configured."""
    lines = []
    if settings.auth.signing_key or settings.auth.signing_key_file:
        lines.append(format_signing_key(settings.signing_keys()))
    if settings.auth.data_key:
        lines.append(f"AUTH__DATA_KEY={settings.auth.data_key.get_secret_value()}")
    if settings.ledger.signing_key:
        lines.append(f"{_LEDGER_KEY}={settings.ledger_key()}")
    return "".join(f"{line}\n" for line in lines).encode()


def find_ledger_key(keys: bytes) -> str | None:
    """Return the private key of the ledger among the lines."""
    return dotenv_values(stream=StringIO(keys.decode())).get(_LEDGER_KEY)


@contextmanager
def open_keys_file(path: Path | None) -> Iterator[BinaryIO | None]:
    """Open a new file for the keys, if a path is given, before a restore that cannot be repeated begins.

    No file is left if the context ends with an error. Raises CommandFailed.
    """
    if path is None:
        yield None
        return
    with open_new_file(path) as file:
        yield file
