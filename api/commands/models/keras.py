"""`atalaya train` and `atalaya export`: each runs in a subprocess, the only one that imports Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import to_builtins
from msgspec.structs import asdict

from api.commands.options.gate import PhotosOption, ScenesOption
from api.commands.options.model import find_keras_python
from model.offline.export import ExportOptions
from model.offline.keras_process import run_in_keras
from model.offline.train import DEFAULT_STAGES, PARTS, Stage, TrainOptions

DataOption = Annotated[
    Path | None, typer.Option(help="The training data, to fit calibration, abstention and prediction sets.")
]


def train(  # noqa: PLR0913, PLR0917  (one parameter for each option)
    data: Annotated[Path, typer.Option(help="Folder with train/, validation/ and test/, or the original layout.")],
    init: Annotated[Path, typer.Option(help='"imagenet", a .weights.h5 file of the backbone, or an earlier .keras.')],
    out: Annotated[
        Path, typer.Option(help="Folder of the run. If it contains an interrupted run, that run is resumed.")
    ],
    extra: Annotated[
        Path | None,
        typer.Option(help="Additional training images from another camera, in folders named after the classes."),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PIXELS:EPOCHS",
            help="A training stage: image size and number of epochs. Repeat the option for each stage.",
        ),
    ] = None,
    input_size: Annotated[int, typer.Option(min=32, help="Width and height of the model's input, in pixels.")] = 256,
    ground_resolution: Annotated[
        float | None, typer.Option(min=0.001, help="Ground resolution of the model's input, in metres per pixel.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="The peak learning rate, reached after the warm-up.")] = 5e-4,
    seed: int = 20260101,
    without: Annotated[
        list[str] | None,
        typer.Option(help="For an ablation study, disable one part: light, colour, scale, noise, mixing or averaging."),
    ] = None,
) -> None:
    """Fine-tune EfficientNetB0 on labelled aerial images; takes about an hour on two cores."""
    options = TrainOptions(
        str(data),
        str(init),
        str(out),
        extra=_to_text(extra),
        stages=tuple(_parse_stage(text) for text in stage) if stage else DEFAULT_STAGES,
        input_size=input_size,
        ground_resolution_m=ground_resolution,
        batch_size=batch_size,
        peak_learning_rate=learning_rate,
        seed=seed,
        without=_parse_parts(without or []),
    )
    run_in_keras("model.offline.train", to_builtins(options), find_keras_python())
    typer.echo(f"The run is in {out}: read {out}/MODEL_CARD.md, then `atalaya export {out}/model.keras`.")


def export(  # noqa: PLR0913, PLR0917  (one argument for each option)
    model: Annotated[Path, typer.Argument(help="A .keras file.")],
    out: Annotated[Path, typer.Option(help="The artefact folder to create.")],
    name: Annotated[str, typer.Option()] = "efficientnetb0",
    version: Annotated[str, typer.Option(help="For example 1.0.")] = "1.0",
    images: Annotated[Path | None, typer.Option(help="Real images to compare the two models on.")] = None,
    data: DataOption = None,
    photos: PhotosOption = None,
    scenes: ScenesOption = None,
    origin: Annotated[
        str | None, typer.Option(help="Sources and licences of the photos and scenes, for the model card.")
    ] = None,
) -> None:
    """Convert a .keras file to ONNX; fails unless both predict the same on at least 64 images.

    With --data, fit calibration, abstention and prediction sets on the validation images of training.
    """
    options = ExportOptions(
        model=str(model),
        out=str(out),
        name=name,
        version=version,
        images=_to_text(images),
        data=_to_text(data),
        photographs=_to_text(photos),
        other_scenes=_to_text(scenes),
        origin=origin,
    )
    run_in_keras("model.offline.export", asdict(options), find_keras_python())


def _to_text(folder: Path | None) -> str | None:
    return None if folder is None else str(folder)


def _parse_stage(text: str) -> Stage:
    size, separator, epochs = text.partition(":")
    if not separator or not size.isdecimal() or not epochs.isdecimal() or 0 in (int(size), int(epochs)):
        raise typer.BadParameter(f"{text!r} is not PIXELS:EPOCHS, such as 192:16.", param_hint="--stage")
    return Stage(int(size), int(epochs))


def _parse_parts(names: list[str]) -> tuple[str, ...]:
    for name in names:
        if name not in PARTS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(PARTS)}.", param_hint="--without")
    return tuple(sorted(set(names)))
