"""`atalaya report`: write a report on a quarter to one HTML file."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from api.commands.database import recorded_run
from api.commands.output import JsonFlag, format_count, print_json
from api.commands.reporting.collect import collect_report
from api.commands.reporting.quarter import Quarter, parse_quarter
from api.commands.reporting.recommendations import with_recommendations
from api.commands.reporting.render import Language, render_report
from api.errors import CommandFailed
from api.settings import load_settings
from monitoring.tasks.runs import Task
from storage.private_files import replace_private_file


def report(
    quarter: Annotated[
        Quarter,
        typer.Option(parser=parse_quarter, metavar="QUARTER", help="A calendar quarter in UTC, such as 2026Q4."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The file to write. Default: atalaya-QUARTER.LANG.html.")
    ] = None,
    lang: Annotated[Language, typer.Option(help="The language of the report.")] = Language.ENGLISH,
    as_json: JsonFlag = False,
) -> None:
    """Write a quarterly report: quality, drift, versions, traffic, errors, security, cost, and recommendations."""
    if quarter.start > datetime.now(UTC):
        raise typer.BadParameter(f"{quarter} has not begun.")
    settings, path = load_settings(), out or Path(f"atalaya-{quarter}.{lang}.html")
    with recorded_run(Task.REPORT):
        content = with_recommendations(collect_report(settings, quarter))
        text = render_report(content, settings.cost.prices(), lang)
        try:
            with replace_private_file(path) as (_, file):
                file.write(text)
        except OSError as error:
            raise CommandFailed(f"{path} cannot be written: {os.strerror(error.errno or 0)}.") from None
    if as_json:
        rules = [{"rule": each.rule, **each.values} for each in content.recommendations]
        print_json({"file": str(path), "quarter": str(quarter), "recommendations": rules})
    else:
        predictions = format_count(content.predictions, "prediction")
        typer.echo(f"{path}: {predictions}, {format_count(len(content.recommendations), 'recommendation')}")
