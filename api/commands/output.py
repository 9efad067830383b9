"""Input and output that commands share: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, TextIO

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from api.commands.group import JSON_PRINTED, reporting_write_errors
from api.errors import CommandFailed
from model.quality.intervals import Interval
from monitoring.redaction import to_printable
from storage.private_files import replace_private_file

_PARAGRAPH_WIDTH = 80
_MAX_WORD = 40  # an identifier is shorter, a URL or a digest may be longer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def print_json(document: Any) -> None:
    JSON_PRINTED.set(True)
    typer.echo(json.dumps(document, indent=2))


@contextmanager
def open_text_output(path: Path) -> Iterator[TextIO]:
    """Open standard output for "-", or else a private file that gets its name when the context ends without an error.

    Everything is written when the context ends. Raises CommandFailed, BrokenPipeError.
    """
    if str(path) == "-":
        with reporting_write_errors("Standard output"):
            yield sys.stdout
            sys.stdout.flush()
        return
    with reporting_write_errors(path), replace_private_file(path) as (_, file):
        yield file


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], identifiers: int = 1) -> None:
    """Print a table. On a narrow terminal all columns but the first `identifiers` wrap; in a file or pipe none do.

    Words of up to 40 characters stay whole. The terminal itself has to wrap a table that still does not fit.
    """
    console = Console()
    lines = [[to_printable(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    least = [max(map(_measure_longest_word, column)) for column in zip(*lines, strict=True)]
    borders = 3 * len(headers) + 1
    if console.is_terminal:
        widths = _shrink(widths, widths[:identifiers] + least[identifiers:], console.width - borders)
    console.width = max(console.width, sum(widths) + borders)
    table = Table(box=SIMPLE_HEAD)
    for header, width in zip(headers, widths, strict=True):
        table.add_column(header, overflow="fold", width=width)
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    with console.capture() as captured:
        console.print(table)
    typer.echo(captured.get(), nl=False)


def print_wrapped(text: str, indent: str = "") -> None:
    """Print a paragraph, wrapped at 80 columns; `indent` begins every line but the first."""
    typer.echo(fill(text, _PARAGRAPH_WIDTH, subsequent_indent=indent))


def _measure_longest_word(cell: str) -> int:
    return min(max(map(cell_len, cell.split()), default=0), _MAX_WORD)


def _shrink(widths: Sequence[int], least: Sequence[int], available: int) -> list[int]:
    """Return widths with a sum of at most `available`, if possible. The widest columns shrink first."""
    shrunk = list(widths)
    while sum(shrunk) > available:
        wider = [number for number, width in enumerate(shrunk) if width > least[number]]
        if not wider:
            break
        shrunk[max(wider, key=shrunk.__getitem__)] -= 1
    return shrunk


def format_time(moment: datetime | None) -> str:
    """Format a time in UTC to the second; "" if there is none."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


def format_count(count: int, singular: str, plural: str = "") -> str:
    """Format a count with the words that agree with it. Without a plural, the singular gets an s."""
    return f"{count} {singular}" if count == 1 else f"{count} {plural or f'{singular}s'}"


def format_entries(count: int, kind: str = "") -> str:
    """Format a number of entries of a ledger or log, such as "1 audit entry" or "2 entries"."""
    return format_count(count, f"{kind} entry".lstrip(), f"{kind} entries".lstrip())


def format_erased_images(count: int | None) -> str:
    """Format the result of `erase_images`. A gateway elsewhere may use a store that is not configured here."""
    return "no images (IMAGES__URL is not set)" if count is None else format_count(count, "image")


def format_interval(interval: Interval | None) -> str:
    """Format an estimate in percent with its interval, such as "93.0 (88.6-95.8)"; "" if there is none."""
    if interval is None:
        return ""
    value, lower, upper = (f"{100 * share:.1f}" for share in (interval.value, interval.lower, interval.upper))
    return f"{value} ({lower}-{upper})"


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield `advance(done)`. The bar appears on standard error if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    # rich would redirect what is printed to standard output meanwhile, such as an export, to standard error.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def read_password(from_stdin: bool) -> str:
    """Read one line of standard input, or prompt for the password without echo. Raises CommandFailed."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not _has_terminal():
        raise CommandFailed("There is no terminal to read the password from. Use --password-stdin.")
    password: str = typer.prompt("Password", hide_input=True, err=True)
    return password


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return sys.stdin.isatty()
    return True
