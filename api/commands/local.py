"""`atalaya predict` and `atalaya evaluate`: the model without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands.output import JsonFlag, print_json, print_table, progress_bar
from api.errors import CommandFailed
from api.settings import load_settings

ModelOption = Annotated[Path | None, typer.Option(help="An artefact folder; MODEL__URL's if absent.")]


def predict(images: list[Path], model: ModelOption = None, as_json: JsonFlag = False) -> None:
    """Name the land use in local images."""
    from model.backends.base import Backend
    from model.backends.open import open_backend
    from model.errors import ImageRejected
    from model.imaging.decode import decode_image

    def answer(backend: Backend, path: Path) -> dict[str, Any]:
        try:
            pixels = decode_image(path.read_bytes(), backend.info.input_spec).pixels
        except (ImageRejected, OSError) as error:
            return {"image": str(path), "error": str(error)}
        probabilities = backend.predict(pixels[None])[0]
        index = int(probabilities.argmax())
        return {"image": str(path), "label": backend.info.classes[index], "probability": float(probabilities[index])}

    backend = open_backend(_url(model))
    answers = [answer(backend, path) for path in images]
    backend.close()
    print_results(answers, as_json)


def evaluate(data: Annotated[Path, typer.Option()], model: ModelOption = None, as_json: JsonFlag = False) -> None:
    """Judge a model on labelled images: DATA/test where there is one, else DATA."""
    from model.backends.open import open_backend
    from model.offline.dataset import find_evaluation_folder, list_images
    from model.offline.evaluate import evaluate as judge

    backend = open_backend(_url(model))
    files = list_images(find_evaluation_folder(data), backend.info.classes)
    with progress_bar("Evaluating", len(files)) as advance:
        results = judge(backend, files, advance)
    name = backend.info.full_name
    backend.close()
    if as_json:
        print_json({"model": name, **results.as_dict()})
        return
    print_table(
        ("model", "images", "accuracy", "macro F1", "loss", "ECE"),
        [
            (
                name,
                str(results.n),
                *(f"{v:.4f}" for v in (results.accuracy, results.macro_f1, results.loss, results.ece)),
            )
        ],
    )


def print_results(answers: list[dict[str, Any]], as_json: bool) -> None:
    """A row an image; raises CommandFailed when any could not be answered, after the rest were shown."""
    if as_json:
        print_json(answers)
    else:
        rows = [(a["image"], a["label"], f"{a['probability']:.4f}") for a in answers if "label" in a]
        if rows:
            print_table(("image", "land use", "probability"), rows)
    failed = [a for a in answers if "error" in a]
    if failed:
        first = failed[0]
        raise CommandFailed(f"{len(failed)} of {len(answers)} images failed; {first['image']}: {first['error']}")


def _url(model: Path | None) -> str:
    return load_settings().model.url if model is None else f"onnx://{model}"
