"""The keys in a backup: lines as in .env."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from api.commands.secrets import format_signing_key
from api.errors import CommandFailed
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


def write_keys(path: Path, keys: bytes) -> None:
    """Write the lines to a new file that only its owner can read. Raises CommandFailed."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(keys)
    except OSError as error:
        raise CommandFailed(f"The keys cannot be written to {path}: {error.strerror}. Name a new file.") from None
