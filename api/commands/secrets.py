"""`atalaya secrets`: what must not have a default."""

from __future__ import annotations

import os
import re
from pathlib import Path

import typer

from api.errors import SettingsError
from api.settings import Settings

app = typer.Typer(help="Make the secrets a gateway needs.", no_args_is_help=True)
ENV_FILE = Path(".env")
_KEY_LINE = re.compile(r"^AUTH__SIGNING_KEY=.+$", re.MULTILINE)


@app.callback()
def _group() -> None:
    """Keep `init` a subcommand while it is the only one."""


@app.command("init")
def init() -> None:
    """Write a new signing key into .env, unless one is there; nothing else in the file changes."""
    from auth.signatures import generate_signing_key

    text = ENV_FILE.read_text() if ENV_FILE.exists() else ""
    if _KEY_LINE.search(text):
        typer.echo(f"{ENV_FILE} has its secrets.", err=True)
        return
    kept = re.sub(r"^AUTH__SIGNING_KEY=\n?", "", text, flags=re.MULTILINE)
    separator = "" if not kept or kept.endswith("\n") else "\n"
    _replace_private(ENV_FILE, f"{kept}{separator}{_line(generate_signing_key('ES256'))}\n")
    typer.echo(f"Wrote a new signing key into {ENV_FILE}.", err=True)


def rotate_signing_key(settings: Settings) -> str:
    """Put a new signing key in front of the ones there are; returns what is left to do. Raises SettingsError."""
    from auth.keyring import rotate_bundle

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
    return f'AUTH__SIGNING_KEY="{escaped}"'


def _replace_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner alone."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
