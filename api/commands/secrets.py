"""`atalaya secrets`: keys that must not have a default."""

from __future__ import annotations

import os
import re
from pathlib import Path

import typer

from api.commands.database import CommandEvent, run_with_engine
from api.errors import SettingsError
from api.settings import Settings
from auth.login.data_keys import new_data_key
from auth.tokens.jws import generate_signing_key
from auth.tokens.keyring import rotate_bundle
from monitoring.chains.signing import new_private_key

app = typer.Typer(no_args_is_help=True)
ENV_FILE = Path(".env")
_SIGNING_KEY = "AUTH__SIGNING_KEY"
_DATA_KEY = "AUTH__DATA_KEY"
_LEDGER_KEY = "LEDGER__SIGNING_KEY"
_KEY_LINE = re.compile(rf"^{_SIGNING_KEY}=.+$", re.MULTILINE)


@app.callback()
def _group() -> None:
    """Without a callback, Typer would make the only subcommand the command itself."""


@app.command("init")
def init() -> None:
    """Add the keys that a gateway needs to .env, unless they are there; nothing else in the file changes."""
    before = ENV_FILE.read_text() if ENV_FILE.exists() else ""
    text = before
    lines = {
        _SIGNING_KEY: _signing_key_line(generate_signing_key("ES256")),
        _DATA_KEY: f"{_DATA_KEY}={new_data_key()}",
        _LEDGER_KEY: f"{_LEDGER_KEY}={new_private_key()}",
    }
    for name, line in lines.items():
        if not re.search(rf"^{name}=.+$", text, re.MULTILINE):
            text = _add_line(text, name, line)
    if text == before:
        typer.echo(f"{ENV_FILE} already has the secrets.", err=True)
        return
    _replace_private(ENV_FILE, text)
    typer.echo(f"New keys are in {ENV_FILE}.", err=True)


def _add_line(text: str, name: str, line: str) -> str:
    """Append `line`, and remove an empty setting of that name."""
    kept = re.sub(rf"^{name}=\n?", "", text, flags=re.MULTILINE)
    separator = "" if not kept or kept.endswith("\n") else "\n"
    return f"{kept}{separator}{line}\n"


def rotate_signing_key(settings: Settings) -> str:
    """Add a new signing key to the existing ones; returns what the operator has to do next. Raises SettingsError."""

    async def rotate(_: object) -> str:
        return _write_rotated_keys(settings)

    # Opening the database first ensures that no key is rotated when the audit log cannot record it.
    return run_with_engine(settings, rotate, lambda _: CommandEvent("signing_key", "rotated"))


def _write_rotated_keys(settings: Settings) -> str:
    """Raises SettingsError."""
    bundle = rotate_bundle(settings.auth.signing_algorithm, settings.signing_keys())
    path = settings.auth.signing_key_file
    if path is not None:
        _replace_private(path, bundle)
        return f"A new signing key is in {path}. Running gateways sign with it after ten seconds."
    text = ENV_FILE.read_text() if ENV_FILE.exists() else ""
    if not _KEY_LINE.search(text):
        raise SettingsError(
            "AUTH__SIGNING_KEY is not in .env. Change it where it is set, or use AUTH__SIGNING_KEY_FILE."
        )
    line = _signing_key_line(bundle)
    _replace_private(ENV_FILE, _KEY_LINE.sub(lambda _: line, text))
    return f"A new signing key is in {ENV_FILE}. Restart the gateway to use it; older tokens stay valid."


def _signing_key_line(bundle: str) -> str:
    escaped = bundle.strip().replace("\n", "\\n")
    return f'{_SIGNING_KEY}="{escaped}"'


def _replace_private(path: Path, text: str) -> None:
    """Replace the file atomically; only its owner can read it (0600)."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
