"""Asks on the command line for confirmation of actions that cannot be undone."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from api.errors import CommandFailed

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation; for scripts and scheduled jobs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print how many entries would be removed.")]


def confirm(question: str, *, yes: bool, needed: bool = True) -> None:
    """Ask on the terminal, unless `yes` is set or there is nothing to remove. Raises CommandFailed, Abort.

    A script without a terminal has to pass --yes even if there is nothing to remove, so that it does not fail later.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandFailed(
            "Nothing was changed, because there is no terminal to ask for confirmation. Use --yes in scripts."
        )
    if needed:
        typer.confirm(question, abort=True, err=True)
