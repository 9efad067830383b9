"""`atalaya models quality`: the quality of a model on live traffic."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from api.commands.database import open_migrated_engine
from api.commands.models.quality.live_sums import update_sums
from api.commands.models.quality.quality_tables import print_quality
from api.commands.options.times import parse_time
from api.commands.output import JsonFlag, print_json
from api.schemas.quality import QualityResponse
from api.services.measuring.quality import compute_versions, start_of_hour
from api.settings import load_settings


def quality(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the model, without its version.")],
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Only predictions since the beginning of this hour, UTC."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a model's accuracy on live traffic, from the labels of past predictions and from its confidence."""
    start = start_of_hour(since) if since is not None else None
    settings = load_settings()
    with open_migrated_engine(settings) as engine:
        update_sums(settings, engine)
        versions = compute_versions(engine, name, version, start)
    if as_json:
        print_json(QualityResponse.of(name, start, versions).model_dump(mode="json"))
    else:
        print_quality(name, start, versions)
