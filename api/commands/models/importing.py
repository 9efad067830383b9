"""`atalaya models import`: make an artefact from a model file that need not be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.commands.options.gate import PhotosOption, ScenesOption
from api.commands.options.model import find_keras_python
from api.commands.output import JsonFlag, print_json
from model.importing.importer import ImportOptions, import_model


def import_file(  # noqa: PLR0913, PLR0917  (one argument for each option)
    file: Annotated[Path, typer.Argument(help="A .keras or .h5 file, saved by Keras 2.13 to 3.15.")],
    name: Annotated[str, typer.Option(help="The name of the model.")],
    version: Annotated[str, typer.Option(help="For example 1.2.")],
    out: Annotated[Path, typer.Option(help="The artefact folder to create.")],
    images: Annotated[Path | None, typer.Option(help="Real images to compare the two models on.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled images that the model did not see, to fit and measure its confidence.")
    ] = None,
    photos: PhotosOption = None,
    scenes: ScenesOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Import a model file that need not be trusted; takes a minute.

    The file is checked against an allow-list, and converted in a sandbox without network, secrets and other files.
    Fails with the reason, and writes nothing, if the file is not allowed, exceeds a limit or cannot be served.
    """
    options = ImportOptions(file, out, name, version, images, data, photos, scenes)
    manifest = import_model(options, find_keras_python())
    golden = manifest.results["golden"]
    if as_json:
        print_json({"model": manifest.full_name, "folder": str(out), "golden": golden})
        return
    typer.echo(f"Imported {manifest.full_name} to {out}.")
    if "accuracy" in golden:
        accuracy, error = golden["accuracy"], golden["ece"]
        typer.echo(f"Accuracy {accuracy:.4f}, calibration error {error:.4f} on {golden['images']} images.")
    latency = golden["latency_ms"]
    typer.echo(f"{latency['median']:g} ms per image, p95 {latency['p95']:g} ms; {golden['memory_mb']:g} MB of memory.")
