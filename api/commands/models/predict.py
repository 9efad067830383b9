"""`atalaya predict`: classify local images without a gateway."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import asdict

from api.commands.options.model import ModelOption, open_chosen_backend
from api.commands.output import JsonFlag, format_count, print_json, print_table
from api.errors import CommandFailed
from model.backends.base import Backend
from model.errors import ImageRejected
from model.explanation.explanation import ExplanationRequest
from model.imaging.bounds import read_image_file
from model.serving.prediction import predict_image
from monitoring.redaction import to_printable

ExplainOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PNG", help="Write the image to this file, with the regions that support the label highlighted."
    ),
]


def predict(
    images: list[Path], model: ModelOption = None, explain: ExplainOption = None, as_json: JsonFlag = False
) -> None:
    """Classify the land use shown in local images."""
    if explain is not None:
        _check_picture(explain, images)
    with closing(open_chosen_backend(model)) as backend:
        results = [_predict_one(backend, path, explain) for path in images]
    print_results(results, as_json)


def print_results(results: list[dict[str, Any]], as_json: bool, stopped: BaseException | None = None) -> None:
    """Print a row for each classified image, and a line on standard error for each failed image and each warning.

    Raises `stopped`, the error that ended the command early, or CommandFailed if an image failed. With `as_json` and
    without any results, nothing is printed, so that `run_command` prints the document of the error.
    """
    if as_json and results:
        print_json(results)
    elif not as_json:
        _print_predictions([result for result in results if "label" in result])
    for result in [] if as_json else results:
        for warning in result.get("warnings", []):
            typer.echo(to_printable(f"{result['image']}: {warning['detail']}"), err=True)
    failed = [result for result in results if "error" in result]
    for result in [] if as_json else failed:
        typer.echo(to_printable(f"{result['image']}: {result['error']}"), err=True)
    if stopped is not None:
        raise stopped
    if failed:
        raise CommandFailed(f"{len(failed)} of {format_count(len(results), 'image')} failed.")


def _print_predictions(predictions: list[dict[str, Any]]) -> None:
    headers = ["image", "land use", "probability"]
    rows = [[each["image"], each["label"], f"{each['probability']:.4f}"] for each in predictions]
    if any(each["abstained"] for each in predictions):
        headers.append("abstained")
        for row, each in zip(rows, predictions, strict=True):
            row.append(describe_reason(each["reason"]))
    if rows:
        print_table(headers, rows)


def describe_reason(reason: str | None) -> str:
    """Return in words why the model abstained; "" if it did not. Reasons of later releases stay readable."""
    return "" if reason is None else reason.replace("_", " ")


def describe_os_error(error: OSError) -> str:
    """Return one sentence about a file that cannot be read."""
    return f"The file cannot be read: {(error.strerror or type(error).__name__).lower()}."


def _check_picture(picture: Path, images: list[Path]) -> None:
    """Raise BadParameter for several images, and for a picture that is not a PNG file or would replace the image."""
    if len(images) > 1:
        raise typer.BadParameter("--explain takes one image.")
    if picture.suffix.lower() != ".png" or picture.resolve() == images[0].resolve():
        raise typer.BadParameter("--explain takes the name of a new file that ends in .png.")


def _predict_one(backend: Backend, path: Path, picture: Path | None) -> dict[str, Any]:
    request = None if picture is None else ExplanationRequest(overlay=True)
    try:
        prediction = predict_image(backend, read_image_file(path), request)
    except ImageRejected as error:
        return {"image": str(path), "error": str(error)}
    except OSError as error:
        return {"image": str(path), "error": describe_os_error(error)}
    if picture is not None and prediction.explanation is not None and prediction.explanation.overlay is not None:
        _write_picture(picture, prediction.explanation.overlay)
    return {
        "image": str(path),
        "label": prediction.label,
        "probability": prediction.confidence,
        "raw_probability": float(prediction.probabilities[prediction.index]),
        "abstained": prediction.reason is not None,
        "reason": prediction.reason,
        "bit_depth": prediction.image.bit_depth,
        "scaling": prediction.image.scaling,
        "ground_resolution_m": prediction.image.ground_resolution_m,
        "warnings": [asdict(warning) for warning in prediction.warnings],
        "model": prediction.model.full_name,
    }


def _write_picture(path: Path, picture: bytes) -> None:
    try:
        path.write_bytes(picture)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise CommandFailed(f"{path} cannot be written: {reason}. Choose another --explain.") from error
