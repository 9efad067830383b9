"""`atalaya models reference`: the reference for drift, for an artefact whose manifest has none."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from api.commands.options.model import ModelOption, open_chosen_backend
from api.commands.output import format_count, print_json
from api.errors import CommandFailed
from model.drift.files import describe_reference_file
from model.offline.dataset import split_training_data
from model.offline.fitting.drift_reference import measure_reference
from monitoring.machine.cgroups import count_processors


def reference(
    data: Annotated[Path, typer.Option(help="The training data, one folder per class.")],
    model: ModelOption = None,
    validation: Annotated[
        float,
        typer.Option(min=0, max=1, help="The share of images held out of training, if there is no folder validation/."),
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="The seed of the training, which chose these images.")] = 20260101,
) -> None:
    """Print a model's drift reference as JSON, for a file in artifacts/references.

    `export` writes it into new manifests.
    """
    threads = count_processors()
    with closing(open_chosen_backend(model, threads)) as backend:
        held_out = split_training_data(data, validation, seed, backend.info.classes)[1]
        measured = measure_reference(backend, held_out.paths, threads)
        if measured is None:
            images = format_count(len(held_out), "image that was", "images that were")
            raise CommandFailed(f"{data} has only {images} held out; 50 are needed.")
        print_json(describe_reference_file(measured, backend.info.full_name, backend.info.digest))
