"""`atalaya ledger replay`: repeat a recorded prediction and compare the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.database import run_with_engine
from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed
from api.settings import Settings, load_settings
from monitoring.errors import PredictionNotFound
from monitoring.ledger.entries import EntryWithPayload
from monitoring.ledger.payloads import find_payload_problem
from monitoring.ledger.reader import LedgerReader


def replay(
    prediction_id: Annotated[str, typer.Argument(metavar="ID")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image file that was sent.")],
    model: Annotated[
        Path | None, typer.Option(help="The folder of the model. Default: the one with the recorded digest.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Repeat a prediction and compare it bit for bit with the recorded one."""
    from api.services.registry import list_artefact_folders  # these load the model libraries
    from model.imaging.bounds import read_image_file
    from model.serving.replay import replay as repeat_prediction

    settings = load_settings()
    recorded = _read_recorded(settings, prediction_id)
    facts = recorded.read_facts()
    folders = [model] if model else list_artefact_folders(settings)
    comparison = repeat_prediction(facts, read_image_file(image), folders, settings.artefact_key())
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
        output, used = facts["output"], facts["model"]
        typer.echo(
            f"Identical, bit for bit: {output['label']}, probability {output['confidence']:.4f} "
            f"({used['name']}-v{used['version']}, {recorded.entry.at})"
        )


def _read_recorded(settings: Settings, prediction_id: str) -> EntryWithPayload:
    """Raises CommandFailed if there is no record, or if it was changed."""

    async def read(engine: AsyncEngine) -> tuple[EntryWithPayload, str | None]:
        reader = LedgerReader(engine)
        recorded = await reader.find(prediction_id)
        return recorded, await reader.find_previous_hash(recorded.entry)

    try:
        recorded, previous = run_with_engine(settings, read)
    except PredictionNotFound:
        raise CommandFailed(
            f"The ledger contains no prediction {prediction_id}. Check the id; it may be erased, pruned or still "
            "spooled."
        ) from None
    problem = find_payload_problem(recorded.entry, recorded.payload)
    if problem is not None:
        raise CommandFailed(f"The payload of {prediction_id} {problem}.")
    if previous is None or recorded.entry.hash != recorded.entry.compute_hash(previous):
        raise CommandFailed(
            f"The entry of {prediction_id} was changed, or is out of place. Run `atalaya ledger verify`."
        )
    return recorded
