"""`atalaya ledger export`: write a verifiable copy, as JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict

from api.commands.database import CommandEvent, write_event
from api.commands.group import reporting_write_errors
from api.commands.ledger.database import check_model_recorded, find_subject, open_snapshot
from api.commands.ledger.verify import NO_PARQUET
from api.commands.options.times import parse_time
from api.commands.output import JsonFlag, format_entries, open_text_output, print_json, progress_bar
from api.errors import CommandFailed
from api.settings import Settings, load_settings
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.exports.lines import write_lines
from monitoring.ledger.exports.selection import count_entries, select_records
from monitoring.ledger.records import EntryRecord, Record, StreamHeader
from storage.private_files import replace_private_file


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"


def export(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; - for standard output.")],
    since: Annotated[
        datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="Only entries from this time on.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="Only entries before this time.")
    ] = None,
    principal: Annotated[str, typer.Option(help="Only the payloads of this user, by name or subject.")] = "",
    model: Annotated[str, typer.Option(help="Only the payloads of this model, such as efficientnetb0-v1.1.")] = "",
    export_format: Annotated[ExportFormat, typer.Option("--format")] = ExportFormat.JSONL,
    as_json: JsonFlag = False,
) -> None:
    """Export the ledger, or part of it, to a file that `atalaya ledger verify` can verify."""
    if str(path) == "-" and (as_json or export_format is ExportFormat.PARQUET):
        raise typer.BadParameter("Only JSON lines can be written to standard output: name a file, or omit --json.")
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{path} is not a file.")
    settings = load_settings()
    if model:
        check_model_recorded(settings, model)
    header = StreamHeader(
        since=format_timestamp(since) if since else "",
        until=format_timestamp(until) if until else "",
        principal=find_subject(settings, principal) if principal else "",
        model=model,
    )
    detail = {name: value for name, value in asdict(header).items() if value}
    write_event(settings, CommandEvent("ledger", "exported", detail=detail))
    entries, payloads = _export(settings, header, path, export_format)
    if as_json:
        print_json({"entries": entries, "payloads": payloads})
    else:
        typer.echo(f"{format_entries(entries)} exported, {payloads} with a payload.", err=True)


def _export(settings: Settings, header: StreamHeader, path: Path, export_format: ExportFormat) -> tuple[int, int]:
    """Return how many entries were written, and how many of them with a payload."""
    entries = payloads = 0
    with (
        _open_writer(path, export_format) as write,
        open_snapshot(settings) as connection,
        progress_bar("exporting", count_entries(connection, header)) as advance,
    ):
        for record in write(select_records(connection, header)):
            if isinstance(record, EntryRecord):
                entries, payloads = entries + 1, payloads + (record.payload is not None)
                if entries % 1000 == 0:
                    advance(entries)
    return entries, payloads


@contextmanager
def _open_writer(path: Path, export_format: ExportFormat) -> Iterator[Callable[[Iterable[Record]], Iterator[Record]]]:
    """Yield a function that writes each record and yields it again. Raises CommandFailed, BrokenPipeError."""
    if export_format is ExportFormat.PARQUET:
        try:
            from monitoring.ledger.exports.parquet import write_rows
        except ImportError:
            raise CommandFailed(NO_PARQUET) from None
        with reporting_write_errors(path), replace_private_file(path) as (temporary, _):
            yield lambda records: write_rows(records, temporary)
    else:
        with open_text_output(path) as file:
            yield lambda records: write_lines(records, file)
