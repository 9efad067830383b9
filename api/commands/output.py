"""Input and output that commands share: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from getpass import GetPassWarning
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from api.commands.group import JSON_PRINTED
from api.errors import CommandFailed

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def print_json(document: Any) -> None:
    JSON_PRINTED.set(True)
    typer.echo(json.dumps(document, indent=2))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; a narrow terminal wraps every column but the first, which identifies the row."""
    columns = [Column(header, overflow="fold", no_wrap=not number) for number, header in enumerate(headers)]
    table = Table(*columns, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    console = Console()
    with console.capture() as captured:
        console.print(table)
    typer.echo(captured.get(), nl=False)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield `advance(done)`; the bar appears on standard error if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def read_password(from_stdin: bool) -> str:
    """Read one line of standard input, or prompt for the password without an echo. Raises CommandFailed."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error", GetPassWarning)
        try:
            password: str = typer.prompt("Password", hide_input=True, err=True)
        except GetPassWarning:
            raise CommandFailed("There is no terminal to read the password from. Use --password-stdin.") from None
    return password
