"""How commands speak: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from api.errors import ApiError
from auth.errors import AuthError
from model.errors import ModelError
from monitoring.errors import MonitoringError
from storage.errors import StorageError

# What a user can cause: told in one line.
FORESEEN = (ApiError, AuthError, ModelError, MonitoringError, StorageError, OSError)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*headers, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Any]:
    """Yield `advance(done)`, drawn on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def fail(reason: Exception | str, status: int = 1) -> int:
    """Tell why in one line on standard error; returns the exit status."""
    if isinstance(reason, OSError):
        reason = f"{reason.strerror or reason}{f': {reason.filename}' if reason.filename else ''}"
    print(f"error: {' '.join(str(reason).split())}", file=sys.stderr)
    return status


def exit_status(act: Callable[[], int]) -> int:
    """What a process that does only this ends with. An error is told, and ends here."""
    try:
        return act()
    except FORESEEN as error:
        return fail(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1


def read_password(from_stdin: bool) -> str:
    """The password, from standard input or asked for without an echo."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = typer.prompt("Password", hide_input=True)
    return password
