"""`atalaya models quality`: how good a model is on live traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer
from sqlalchemy import Engine

from api.commands.database import run_with_engine
from api.commands.models.quality.quality_tables import print_quality
from api.commands.options.times import parse_time
from api.commands.output import JsonFlag, print_json
from api.schemas.quality import QualityResponse
from api.services.measuring.quality import compute_versions, start_of_hour
from api.settings import Settings, load_settings
from monitoring.quality.sums import SumUpdater
from storage.engine import open_blocking_engine

_WAIT_S = 60  # beside a gateway that writes


def quality(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the model, without its version.")],
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Only predictions since the beginning of this hour, UTC."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how good a model is on live traffic, from the labels of past predictions and from its confidence."""
    start = start_of_hour(since) if since is not None else None
    with _open_engine(load_settings()) as engine:
        for _ in SumUpdater(engine).update():
            pass
        versions = compute_versions(engine, name, version, start)
    if as_json:
        print_json(QualityResponse.of(name, start, versions).model_dump(mode="json"))
    else:
        print_quality(name, start, versions)


@contextmanager
def _open_engine(settings: Settings) -> Iterator[Engine]:
    run_with_engine(settings, _migrate_only)
    engine = open_blocking_engine(settings.database_url.get_secret_value(), _WAIT_S)
    try:
        yield engine
    finally:
        engine.dispose()


async def _migrate_only(_: object) -> None:
    """Do nothing: `run_with_engine` has migrated the tables."""
