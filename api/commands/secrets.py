"""`atalaya secrets`: what must not have a default."""

from __future__ import annotations

import os
import re
from pathlib import Path

import typer

app = typer.Typer(help="Make the secrets a gateway needs.", no_args_is_help=True)
ENV_FILE = Path(".env")


@app.callback()
def _group() -> None:
    """Keep `init` a subcommand while it is the only one."""


@app.command("init")
def init() -> None:
    """Write a new signing key into .env, unless one is there; nothing else in the file changes."""
    from auth.tokens import generate_signing_key

    text = ENV_FILE.read_text() if ENV_FILE.exists() else ""
    if re.search(r"^AUTH__SIGNING_KEY=.", text, re.MULTILINE):
        typer.echo(f"{ENV_FILE} has its secrets.", err=True)
        return
    key = generate_signing_key("ES256").strip().replace("\n", "\\n")
    kept = re.sub(r"^AUTH__SIGNING_KEY=\n?", "", text, flags=re.MULTILINE)
    separator = "" if not kept or kept.endswith("\n") else "\n"
    _replace_private(f'{kept}{separator}AUTH__SIGNING_KEY="{key}"\n')
    typer.echo(f"Wrote a new signing key into {ENV_FILE}.", err=True)


def _replace_private(text: str) -> None:
    """Replace the file in one step, readable by its owner alone."""
    draft = ENV_FILE.with_name(f"{ENV_FILE.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(ENV_FILE)
