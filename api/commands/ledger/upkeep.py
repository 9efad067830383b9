"""`atalaya ledger prune` and `erase`: what is old, and what somebody has a right to be forgotten.

The record of access hears of either before it begins: it may be ended on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.database import CommandEvent, record_event, run_with_engine
from api.commands.ledger.database import principal_named
from api.commands.output import JsonFlag, print_json, progress_bar
from api.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from monitoring.chains.signing import Signer

_PATIENCE_S = 60  # beside a gateway that writes


def prune(
    public_key: Annotated[
        list[str] | None, typer.Option(help="Of an earlier key that has signed; what `atalaya ledger key` printed.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove the predictions older than LEDGER__KEEP_DAYS; what is left still verifies."""
    from monitoring.ledger.retention import Pruning

    settings = load_settings()
    now = datetime.now(UTC)
    before = now - timedelta(days=settings.ledger.keep_days)
    with _tools(settings) as (engine, signer):
        pruning = Pruning(engine, signer, now, public_key or ())
        count = pruning.count(before)
        _note(settings, CommandEvent("ledger", "pruned", detail={"entries": str(count), "before": before.isoformat()}))
        removed = _added_up("pruning", count, pruning.prune(before))
    if as_json:
        print_json({"removed": removed})
    else:
        typer.echo(f"{removed} predictions older than {settings.ledger.keep_days} days removed.")


def erase(
    principal: Annotated[str, typer.Option(help="A user's name, or a subject.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Forget what a person's predictions held; that there were some stays provable."""
    from monitoring.ledger.erasure import Eraser

    settings = load_settings()
    subject = principal_named(settings, principal)
    with _tools(settings) as (engine, signer):
        eraser = Eraser(engine, signer, datetime.now(UTC))
        count = eraser.count(subject)
        if not yes:
            typer.confirm(f"Forget {count} predictions of {principal} for ever?", abort=True, err=True)
        _note(settings, CommandEvent("ledger", "erased", target=f"user:{subject}", detail={"payloads": str(count)}))
        erased = _added_up("erasing", count, eraser.erase(subject))
    if as_json:
        print_json({"erased": erased})
    else:
        typer.echo(f"{erased} predictions of {principal} forgotten.")


@contextmanager
def _tools(settings: Settings) -> Iterator[tuple[Engine, Signer]]:
    from monitoring.chains.signing import Signer
    from storage.engine import open_blocking_engine
    from storage.transactions import WRITING

    signer = Signer(settings.ledger_key())
    run_with_engine(settings, _nothing)  # brings the tables up to date
    engine = open_blocking_engine(settings.database_url.get_secret_value(), _PATIENCE_S)
    try:
        yield engine.execution_options(**WRITING), signer
    finally:
        engine.dispose()


async def _nothing(_: object) -> None:
    """All that is wanted has happened before."""


def _added_up(label: str, total: int, parts: Iterator[int]) -> int:
    done = 0
    with progress_bar(label, total) as advance:
        for part in parts:
            done += part
            advance(done)
    return done


def _note(settings: Settings, done: CommandEvent) -> None:
    run_with_engine(settings, lambda engine: record_event(engine, done))
