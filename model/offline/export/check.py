"""Compare the ONNX graph with the Keras model on real and generated images."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
from msgspec import Struct
from numpy.typing import NDArray

from model.errors import ExportRefused, ImageRejected
from model.imaging.bounds import read_image_file
from model.imaging.decode import decode_image, sniff_format
from model.imaging.input_spec import InputSpec
from model.offline.export.patterns import generate_images

TOLERANCE = 1e-4
_MIN_IMAGES = 64
_MAX_REAL_IMAGES = 256
_BATCH = 16


class Agreement(Struct, frozen=True):
    """How closely two sets of probabilities agree. `largest_difference` is the largest over all probabilities."""

    images: int
    real_images: int
    largest_difference: float
    tolerance: float = TOLERANCE


class CheckImages(Struct, frozen=True):
    """Images, uint8 [n, height, width, 3]. The first `real` ones were decoded from files, the others generated."""

    pixels: NDArray[np.uint8]
    real: int


def collect_images(folder: Path | None, spec: InputSpec) -> CheckImages:
    """Decode up to 256 images, evenly sampled from `folder` and its subfolders; generate more if there are under 64.

    Raises ExportRefused if `folder` contains no image.
    """
    real = [] if folder is None else _decode_folder(folder, spec)
    if folder is not None and not real:
        raise ExportRefused(f"No image in {folder} can be decoded. Choose a folder of JPEG, PNG, WebP or TIFF files.")
    generated = generate_images(max(0, _MIN_IMAGES - len(real)), spec.size)
    return CheckImages(np.stack([*real, *generated]), len(real))


def check_softmax(probabilities: NDArray[np.float32]) -> None:
    """Raise ExportRefused unless the values of each row of [n, classes] are probabilities that sum to 1."""
    if not (np.all(probabilities >= 0) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
        raise ExportRefused("The model's outputs are not probabilities that sum to 1. Add a softmax layer at the end.")


def predict_with_onnx(graph: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run a graph with a uint8 input, and return probabilities, float32 [n, classes]. Raises ExportRefused."""
    try:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        batches = np.array_split(pixels, -(-len(pixels) // _BATCH))
        results = [session.run(["probabilities"], {name: batch})[0] for batch in batches]
    except Exception as error:  # ONNX Runtime's own exceptions have no common base class
        raise ExportRefused(f"ONNX Runtime cannot run the graph: {error}") from error
    return np.concatenate(results)


def compare(expected: NDArray[np.float32], actual: NDArray[np.float32], real: int) -> Agreement:
    """Compare two arrays [n, classes]. Raises ExportRefused for a different arg-max or a difference above 1e-4."""
    if expected.shape != actual.shape:
        raise ExportRefused(f"The graph returns shape {actual.shape}, but the model returns {expected.shape}.")
    largest = float(np.abs(expected - actual).max())
    changed = int((expected.argmax(axis=1) != actual.argmax(axis=1)).sum())
    # `not largest <= TOLERANCE` is also true for NaN.
    if changed or not largest <= TOLERANCE:
        raise ExportRefused(
            f"The ONNX graph differs from the model: probabilities differ by up to {largest:.2e} (limit: "
            f"{TOLERANCE:.0e}), and the top class differs on {changed} of {len(expected)} images. Nothing was written."
        )
    return Agreement(len(expected), real, largest)


def _decode_folder(folder: Path, spec: InputSpec) -> list[NDArray[np.uint8]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _looks_like_image(path))
    images = []
    for path in paths[:: max(1, -(-len(paths) // _MAX_REAL_IMAGES))]:
        with suppress(ImageRejected):
            images.append(decode_image(read_image_file(path), spec).pixels)
    return images


def _looks_like_image(path: Path) -> bool:
    with path.open("rb") as file, suppress(ImageRejected):
        sniff_format(file.read(16))
        return True
    return False
