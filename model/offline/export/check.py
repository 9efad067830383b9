"""Does the ONNX graph answer as the Keras model does? Judged on real images and drawn ones."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from model.errors import ExportRefused, ImageRefused
from model.imaging.decode import INPUT_SIZE, decode_image, sniff_format

TOLERANCE = 1e-4
_AT_LEAST = 64
_REAL_AT_MOST = 256
_BATCH = 16
_SIZE = INPUT_SIZE[0]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How closely two sets of probabilities agree; `largest_difference` is that of any one probability."""

    images: int
    real_images: int
    largest_difference: float
    tolerance: float = TOLERANCE


@dataclass(frozen=True, slots=True)
class CheckImages:
    """uint8 [n, 256, 256, 3], of which the first `real` were decoded from files."""

    pixels: NDArray[np.uint8]
    real: int


def collect_images(folder: Path | None) -> CheckImages:
    """Decode up to 256 images from anywhere below `folder`, evenly spread, and draw more where they are under 64.

    Raises ExportRefused when `folder` has no image.
    """
    real = [] if folder is None else _decode_below(folder)
    if folder is not None and not real:
        raise ExportRefused(f"No image can be decoded below {folder}. Name a folder of JPEG, PNG, WebP or TIFF files.")
    drawn = draw_images(max(0, _AT_LEAST - len(real)))
    return CheckImages(np.stack([*real, *drawn]), len(real))


def draw_images(count: int) -> list[NDArray[np.uint8]]:
    """Draw flat colours, gradients, checkerboards, clouds, noise and roofs; always the same ones."""
    generator = np.random.default_rng(64)
    kinds = (_flat, _gradient, _checkerboard, _clouds, _noise, _roofs)
    return [kinds[index % len(kinds)](generator) for index in range(count)]


def check_softmax(probabilities: NDArray[np.float32]) -> None:
    """Refuse [n, classes] whose rows are not probabilities that sum to 1. Raises ExportRefused."""
    if not (np.all(probabilities >= 0) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
        raise ExportRefused("The model's outputs are not probabilities that sum to 1. End it with a softmax layer.")


def predict_with_onnx(graph: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Ask ONNX Runtime for the probabilities, float32 [n, classes]. Raises ExportRefused."""
    try:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        batches = np.array_split(pixels, -(-len(pixels) // _BATCH))
        answers = [session.run(["probabilities"], {name: batch.astype(np.float32)})[0] for batch in batches]
    except Exception as error:  # ONNX Runtime's own classes share no base
        raise ExportRefused(f"ONNX Runtime cannot run the graph: {error}") from error
    return np.concatenate(answers)


def compare(expected: NDArray[np.float32], answered: NDArray[np.float32], real: int) -> Agreement:
    """Compare two [n, classes]. Raises ExportRefused on another arg-max or a difference over 1e-4."""
    if expected.shape != answered.shape:
        raise ExportRefused(f"The graph answers {answered.shape} where the model answers {expected.shape}.")
    largest = float(np.abs(expected - answered).max())
    changed = int((expected.argmax(axis=1) != answered.argmax(axis=1)).sum())
    # "Not within" rather than "over": a NaN is neither.
    if changed or not largest <= TOLERANCE:
        raise ExportRefused(
            f"The ONNX graph differs from the model: by up to {largest:.2e} (at most {TOLERANCE:.0e} is accepted), "
            f"with another first class on {changed} of {len(expected)} images. Nothing was written."
        )
    return Agreement(len(expected), real, largest)


def _decode_below(folder: Path) -> list[NDArray[np.uint8]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _looks_like_image(path))
    images = []
    for path in paths[:: max(1, -(-len(paths) // _REAL_AT_MOST))]:
        with suppress(ImageRefused):
            images.append(decode_image(path.read_bytes()).pixels)
    return images


def _looks_like_image(path: Path) -> bool:
    with path.open("rb") as file, suppress(ImageRefused):
        sniff_format(file.read(16))
        return True
    return False


def _flat(generator: np.random.Generator) -> NDArray[np.uint8]:
    return np.broadcast_to(generator.integers(0, 256, 3, np.uint8), (_SIZE, _SIZE, 3))


def _gradient(generator: np.random.Generator) -> NDArray[np.uint8]:
    start, end = generator.uniform(0, 255, (2, 3))
    share = np.linspace(0, 1, _SIZE)[:, None]
    image: NDArray[np.float64] = np.broadcast_to((start + (end - start) * share)[:, None, :], (_SIZE, _SIZE, 3))
    return np.rot90(image, int(generator.integers(4))).astype(np.uint8)


def _checkerboard(generator: np.random.Generator) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:_SIZE, 0:_SIZE] // generator.integers(2, 65)
    first, second = generator.integers(0, 256, (2, 3), np.uint8)
    image: NDArray[np.uint8] = np.where((x + y)[..., None] % 2, first, second)
    return image


def _clouds(generator: np.random.Generator) -> NDArray[np.uint8]:
    coarse = generator.integers(0, 256, (*generator.integers(3, 33, 2), 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(INPUT_SIZE))


def _noise(generator: np.random.Generator) -> NDArray[np.uint8]:
    return generator.integers(0, 256, (*INPUT_SIZE, 3), np.uint8)


def _roofs(generator: np.random.Generator) -> NDArray[np.uint8]:
    image = _clouds(generator).copy()
    for top, left, height, width in generator.integers(8, 200, (12, 4)):
        image[top : top + height // 3, left : left + width // 3] = generator.integers(0, 256, 3, np.uint8)
    return image
