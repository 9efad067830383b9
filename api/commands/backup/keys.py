"""The keys in a backup, as lines of an .env file."""

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
from monitoring.chains.signing import Signer

_LEDGER_KEY = "LEDGER__SIGNING_KEY"
_EARLIER_KEYS = "LEDGER__PUBLIC_KEYS"


def format_keys(settings: Settings) -> bytes:
    """Return the lines for the configured keys, including the ledger's public keys."""
    lines = []
    if settings.auth.signing_key or settings.auth.signing_key_file:
        lines.append(f"AUTH__SIGNING_ALGORITHM={settings.auth.signing_algorithm}")
        lines.append(format_signing_key(settings.signing_keys()))
    if settings.auth.data_key:
        lines.append(f"AUTH__DATA_KEY={settings.auth.data_key.get_secret_value()}")
    if settings.ledger.signing_key:
        lines.append(f"{_LEDGER_KEY}={settings.ledger_key()}")
    if settings.ledger.public_keys:
        lines.append(f"{_EARLIER_KEYS}={','.join(settings.ledger.public_keys)}")
    if settings.images.key:
        lines.append(f"IMAGES__KEY={settings.images.key.get_secret_value()}")
    return "".join(f"{line}\n" for line in lines).encode()


def find_public_keys(keys: bytes) -> list[str]:
    """Return the ledger's public keys from the lines of `format_keys`: the private key's, and the earlier ones."""
    values = dotenv_values(stream=StringIO(keys.decode()))
    private, earlier = values.get(_LEDGER_KEY), values.get(_EARLIER_KEYS)
    return [*([Signer(private).public_key] if private else []), *(earlier.split(",") if earlier else [])]


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
