"""`atalaya ledger export`: a copy that verifies, as JSON lines or Parquet."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from api.commands.database import CommandEvent, record_event, run_with_engine
from api.commands.ledger.database import ledger_view, principal_named
from api.commands.ledger.verify import NO_PARQUET
from api.commands.output import JsonFlag, print_json, progress_bar
from api.commands.times import parse_time
from api.errors import CommandFailed
from api.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitoring.ledger.records import Header, Record


class Form(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"


def export(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - for standard output.")],
    since: Annotated[
        datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="From this moment on.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="Before this moment.")
    ] = None,
    principal: Annotated[str, typer.Option(help="Only this one's payloads: a user's name, or a subject.")] = "",
    model: Annotated[str, typer.Option(help="Only this model's payloads, such as efficientnetb0-v1.0.")] = "",
    form: Annotated[Form, typer.Option("--format")] = Form.JSONL,
    as_json: JsonFlag = False,
) -> None:
    """Write the ledger, or a part of it, to a file that `atalaya ledger verify` can check."""
    from monitoring.ledger.entries import written_time
    from monitoring.ledger.records import Header

    if str(path) == "-" and (as_json or form is Form.PARQUET):
        raise typer.BadParameter("Standard output takes JSON lines alone: name a file, or leave --json out.")
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{path} is no file.")
    settings = load_settings()
    header = Header(
        since=written_time(since) if since else "",
        until=written_time(until) if until else "",
        principal=principal_named(settings, principal) if principal else "",
        model=model,
    )
    detail = {name: value for name, value in asdict(header).items() if value}
    run_with_engine(settings, lambda engine: record_event(engine, CommandEvent("ledger", "exported", detail=detail)))
    entries, payloads = _export(settings, header, path, form)
    if as_json:
        print_json({"entries": entries, "payloads": payloads})
    else:
        typer.echo(f"{entries} entries exported, {payloads} with their payload.", err=True)


def _export(settings: Settings, header: Header, path: Path, form: Form) -> tuple[int, int]:
    """How many entries were written, and how many with a payload."""
    from monitoring.ledger.exports import exported
    from monitoring.ledger.records import Line

    entries = payloads = 0
    with (
        ledger_view(settings) as connection,
        _written(path, form) as write,
        progress_bar("exporting", _count(connection, header)) as advance,
    ):
        for record in write(exported(connection, header)):
            if isinstance(record, Line):
                entries, payloads = entries + 1, payloads + (record.payload is not None)
                if entries % 1000 == 0:
                    advance(entries)
    return entries, payloads


@contextmanager
def _written(path: Path, form: Form) -> Iterator[Callable[[Iterable[Record]], Iterator[Record]]]:
    """What writes each record that it passes on. The file is its owner's alone, and there once it is whole."""
    from monitoring.ledger.exports import write_lines

    if str(path) == "-":
        yield lambda records: write_lines(records, sys.stdout)
        return
    if form is Form.PARQUET:
        try:
            from monitoring.ledger.parquet import write_rows
        except ImportError:
            raise CommandFailed(NO_PARQUET) from None
        with _private(path) as (part, _):
            yield lambda records: write_rows(records, part)
    else:
        with _private(path) as (_, file):
            yield lambda records: write_lines(records, file)


@contextmanager
def _private(path: Path) -> Iterator[tuple[Path, TextIO]]:
    """A new file beside it, which takes its place in the end: people are in it, and half of one proves nothing."""
    descriptor, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield part, file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _count(connection: Connection, header: Header) -> int:
    """About how many entries there are to go through."""
    from sqlalchemy import func, select

    from monitoring.ledger.tables import ledger_entries

    wanted = select(func.count()).select_from(ledger_entries).where(ledger_entries.c.at >= header.since)
    wanted = wanted.where(ledger_entries.c.at < header.until) if header.until else wanted
    return connection.execute(wanted).scalar_one()
