"""The options that `backup` and `restore` share, and their values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from api.errors import CommandFailed
from auth.accounts.passwords import check_password_policy
from auth.errors import PasswordRefused

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="The file whose first line is the passphrase.")
]
PassphraseStdin = Annotated[
    bool, typer.Option("--passphrase-stdin", help="Read the passphrase from the first line of standard input.")
]


def read_passphrase(file: Path | None, *, from_stdin: bool) -> str | None:
    """Return the passphrase, or None without either option. Raises BadParameter, CommandFailed."""
    if file is not None and from_stdin:
        raise typer.BadParameter("Use either --passphrase-file or --passphrase-stdin.")
    if from_stdin:
        return _decode(sys.stdin.buffer.readline())  # the backup may follow
    if file is None:
        return None
    try:
        return _decode(file.read_bytes())
    except OSError as error:
        raise CommandFailed(f"The passphrase cannot be read from {file}: {error.strerror}.") from None


def _decode(text: bytes) -> str:
    """Return the first line. Raises CommandFailed."""
    try:
        return text.partition(b"\n")[0].rstrip(b"\r").decode()
    except UnicodeDecodeError:
        raise CommandFailed("The passphrase is not UTF-8 text.") from None


def check_passphrase(passphrase: str) -> None:
    """Apply the password policy, because anyone with the file can try passphrases without a limit.

    Raises CommandFailed.
    """
    try:
        check_password_policy(passphrase, "")
    except PasswordRefused as refused:
        raise CommandFailed(f"The passphrase is too weak. {refused}") from None
