"""`atalaya secrets`: what must not have a default."""

from __future__ import annotations

import os
import re
from pathlib import Path

import typer

from api.commands.database import Note, with_engine
from api.errors import SettingsError
from api.settings import Settings

app = typer.Typer(help="Make the secrets a gateway needs.", no_args_is_help=True)
ENV_FILE = Path(".env")
_SIGNING_KEY = "AUTH__SIGNING_KEY"
_DATA_KEY = "AUTH__DATA_KEY"
_LEDGER_KEY = "LEDGER__SIGNING_KEY"
_KEY_LINE = re.compile(rf"^{_SIGNING_KEY}=.+$", re.MULTILINE)


@app.callback()
def _group() -> None:
    """Keep `init` a subcommand while it is the only one."""


@app.command("init")
def init() -> None:
    """Write the keys that a gateway needs into .env, unless they are there; nothing else in the file changes."""
    from auth.login.data_keys import new_data_key
    from auth.tokens.jws import generate_signing_key
    from monitoring.chains.signing import new_private_key

    text = before = ENV_FILE.read_text() if ENV_FILE.exists() else ""
    lines = {
        _SIGNING_KEY: _line(generate_signing_key("ES256")),
        _DATA_KEY: f"{_DATA_KEY}={new_data_key()}",
        _LEDGER_KEY: f"{_LEDGER_KEY}={new_private_key()}",
    }
    for name, line in lines.items():
        if not re.search(rf"^{name}=.+$", text, re.MULTILINE):
            text = _with_line(text, name, line)
    if text == before:
        typer.echo(f"{ENV_FILE} has its secrets.", err=True)
        return
    _replace_private(ENV_FILE, text)
    typer.echo(f"Wrote new keys into {ENV_FILE}.", err=True)


def _with_line(text: str, name: str, line: str) -> str:
    """The text of the file with one more line, and without an empty one of that name."""
    kept = re.sub(rf"^{name}=\n?", "", text, flags=re.MULTILINE)
    separator = "" if not kept or kept.endswith("\n") else "\n"
    return f"{kept}{separator}{line}\n"


def rotate_signing_key(settings: Settings) -> str:
    """Put a new signing key in front of the ones there are; returns what is left to do. Raises SettingsError."""

    async def rotate(_: object) -> str:
        return _rotate(settings)

    # The database first: a key is not rotated where that cannot be recorded.
    return with_engine(settings, rotate, lambda _: Note("signing_key", "rotated"))


def _rotate(settings: Settings) -> str:
    """Raises SettingsError."""
    from auth.tokens.keyring import rotate_bundle

    bundle = rotate_bundle(settings.auth.signing_algorithm, settings.signing_keys())
    path = settings.auth.signing_key_file
    if path is not None:
        _replace_private(path, bundle)
        return f"A new signing key is in {path}. Running gateways read it within a second, and sign with it after ten."
    text = ENV_FILE.read_text() if ENV_FILE.exists() else ""
    if not _KEY_LINE.search(text):
        raise SettingsError(
            "AUTH__SIGNING_KEY is not in .env. Change it where it is set, or use AUTH__SIGNING_KEY_FILE."
        )
    line = _line(bundle)
    _replace_private(ENV_FILE, _KEY_LINE.sub(lambda _: line, text))
    return f"A new signing key is in {ENV_FILE}. Restart the gateway to use it; tokens of the old one stay valid."


def _line(bundle: str) -> str:
    escaped = bundle.strip().replace("\n", "\\n")
    return f'{_SIGNING_KEY}="{escaped}"'


def _replace_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner alone."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
