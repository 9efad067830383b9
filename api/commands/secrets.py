"""`atalaya secrets`: keys that must not have a default."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import typer
from dotenv import dotenv_values

from api.commands.database import CommandEvent, run_with_engine
from api.errors import SettingsError
from api.settings import Settings, home_folder
from auth.login.data_keys import new_data_key
from auth.tokens.jws import generate_signing_key
from auth.tokens.keyring import rotate_bundle
from monitoring.chains.signing import new_private_key
from storage.private_files import replace_private_file, restrict_file

app = typer.Typer(no_args_is_help=True)
_SIGNING_KEY = "AUTH__SIGNING_KEY"
_DATA_KEY = "AUTH__DATA_KEY"
_LEDGER_KEY = "LEDGER__SIGNING_KEY"
_ALGORITHM = "AUTH__SIGNING_ALGORITHM"
_KEY_LINE = re.compile(rf"^{_SIGNING_KEY}=.+$", re.MULTILINE)


@app.callback()
def _group() -> None:
    """Without a callback, Typer would make the only subcommand the command itself."""


@app.command("init")
def init() -> None:
    """Add the keys that a gateway needs to .env, unless they are there; nothing else in the file changes."""
    if not add_secrets((_SIGNING_KEY, _DATA_KEY, _LEDGER_KEY)):
        typer.echo(f"{env_file()} already has the secrets.", err=True)


def env_file() -> Path:
    return home_folder() / ".env"


def find_missing_secrets(settings: Settings) -> list[str]:
    """Return the names of the secrets that a gateway needs and that neither the environment nor .env has."""
    present = {
        _SIGNING_KEY: settings.auth.signing_key or settings.auth.signing_key_file,
        _DATA_KEY: settings.auth.data_key,
        _LEDGER_KEY: settings.ledger.signing_key,
    }
    return [name for name, value in present.items() if value is None]


def add_secrets(names: Iterable[str]) -> bool:
    """Add those of the secrets that .env lacks or leaves empty, and say so; returns whether there were any."""
    path = env_file()
    restrict_file(path)
    values = dotenv_values(path) if path.exists() else {}
    missing = [name for name in names if not values.get(name)]
    if not missing:
        return False
    text = path.read_text() if path.exists() else ""
    for name in missing:
        text = _set_line(text, name, _generate_line(name, "HS256" if values.get(_ALGORITHM) == "HS256" else "ES256"))
    _replace_private(path, text)
    typer.echo(f"New keys are in {path}.", err=True)
    return True


def _generate_line(name: str, algorithm: Literal["ES256", "HS256"]) -> str:
    if name == _SIGNING_KEY:
        return format_signing_key(generate_signing_key(algorithm))
    return f"{name}={new_data_key() if name == _DATA_KEY else new_private_key()}"


def _set_line(text: str, name: str, line: str) -> str:
    """Replace the empty settings of that name by `line`, or append it."""
    lines = text.splitlines()
    empty = [number for number, old in enumerate(lines) if re.match(rf"\s*(export\s+)?{name}\s*=", old)]
    if empty:
        lines[empty[0]] = line
        lines = [old for number, old in enumerate(lines) if number not in empty[1:]]
    else:
        lines.append(line)
    return "".join(f"{kept}\n" for kept in lines)


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
    file = env_file()
    text = file.read_text() if file.exists() else ""
    if not _KEY_LINE.search(text):
        raise SettingsError(
            "AUTH__SIGNING_KEY is not in .env. Change it where it is set, or use AUTH__SIGNING_KEY_FILE."
        )
    line = format_signing_key(bundle)
    _replace_private(file, _KEY_LINE.sub(lambda _: line, text))
    return f"A new signing key is in {file}. Restart the gateway to use it; older tokens stay valid."


def format_signing_key(bundle: str) -> str:
    """Return the line of .env for the signing keys, which are several lines of text."""
    escaped = bundle.strip().replace("\n", "\\n")
    return f'{_SIGNING_KEY}="{escaped}"'


def _replace_private(path: Path, text: str) -> None:
    """Replace the file, or the one that a link names, atomically; only its owner can read it (0600)."""
    with replace_private_file(path.resolve()) as (_, file):
        file.write(text)
