"""`atalaya ledger replay`: a recorded prediction, made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.database import run_with_engine
from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed
from api.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from monitoring.ledger.reader import Past


def replay(
    prediction_id: Annotated[str, typer.Argument(metavar="ID")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The file that was sent.")],
    model: Annotated[Path | None, typer.Option(help="The artefact folder; found by its digest if absent.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Reproduce a prediction bit for bit, or say what differs."""
    from model.serving.replay import replay as make_anew

    settings = load_settings()
    past = _recorded(settings, prediction_id)
    comparison = make_anew(past.facts, image.read_bytes(), [model] if model else _folders(settings))
    if as_json:
        print_json(
            {
                "id": prediction_id,
                "identical": comparison.identical,
                "differences": comparison.differences,
                "largest_difference": comparison.largest,
            }
        )
    if not comparison.identical:
        raise CommandFailed(" ".join(comparison.differences))
    if not as_json:
        output, made = past.facts["output"], past.facts["model"]
        typer.echo(
            f"Identical, bit for bit: {output['label']}, probability {output['confidence']:.4f} "
            f"({made['name']}-v{made['version']}, {past.entry.at})"
        )


def _recorded(settings: Settings, prediction_id: str) -> Past:
    """Raises CommandFailed where there is no record, or one that was changed."""
    from monitoring.errors import PredictionNotFound
    from monitoring.ledger.payloads import payload_problem
    from monitoring.ledger.reader import LedgerReader

    async def found(engine: AsyncEngine) -> tuple[Past, str | None]:
        reader = LedgerReader(engine)
        past = await reader.find(prediction_id)
        return past, await reader.hash_before(past.entry)

    try:
        past, previous = run_with_engine(settings, found)
    except PredictionNotFound:
        raise CommandFailed(
            f"The ledger holds no prediction {prediction_id}. Check the id; it may be erased, pruned or still spooled."
        ) from None
    problem = payload_problem(past.entry, past.payload)
    if problem is not None:
        raise CommandFailed(f"The payload of {prediction_id} {problem}.")
    if previous is None or past.entry.hash != past.entry.computed_hash(previous):
        raise CommandFailed(
            f"The entry of {prediction_id} was changed, or is out of place. Run `atalaya ledger verify`."
        )
    return past


def _folders(settings: Settings) -> Iterator[Path]:
    """Where a model may be: the one that is served, those beside it, and those that are shipped."""
    scheme, _, folder = settings.model.url.partition("://")
    if scheme == "onnx":
        yield Path(folder)
        yield from sorted(Path(folder).resolve().parent.glob("*"))
    yield from sorted(Path("artifacts").glob("*"))
