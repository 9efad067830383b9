"""Measure a back end on labelled images with the same decoder and runtime that serve requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.backends.base import Backend
from model.errors import DatasetError
from model.offline.changes import Pixels
from model.offline.dataset import LabelledFiles, read_image
from model.offline.metrics import EvaluationResults, compute_results

_CLEAN = "clean"


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a model returned for n images: raw `probabilities`, float32 [n, classes], and `pooled` features.

    `pooled` is float32 [n, channels], the mean of each of the last feature maps.
    """

    probabilities: NDArray[np.float32]
    pooled: NDArray[np.float32]


def predict_images(
    backend: Backend,
    images: Sequence[Path] | Sequence[Pixels],
    progress: Callable[[int], object] = lambda _: None,
    *,
    threads: int = 1,
) -> Outputs:
    """Predict every image, one per prediction, on so many threads; the outputs have the order of the images.

    An image is a file, or pixels in the size of the model's input. Calls `progress` with the number of images done so
    far. Raises DatasetError when a file cannot be decoded.
    """
    return predict_changed_images(backend, images, {_CLEAN: _leave_unchanged}, progress, threads=threads)[_CLEAN]


def predict_changed_images(
    backend: Backend,
    images: Sequence[Path] | Sequence[Pixels],
    changes: Mapping[str, Callable[[Pixels], Pixels]],
    progress: Callable[[int], object] = lambda _: None,
    *,
    threads: int = 1,
) -> dict[str, Outputs]:
    """Predict every image under each change, as `predict_images` does; a file is decoded once.

    Calls `progress` with the number of predictions done so far.
    """

    def predict(image: Path | Pixels) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        pixels = read_image(image, backend.info.input_spec).pixels if isinstance(image, Path) else image
        return [backend.predict_pooled(change(pixels)[np.newaxis]) for change in changes.values()]

    rows: list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = []
    with ThreadPoolExecutor(threads) as pool:
        for row in pool.map(predict, images):
            rows.append(row)
            progress(len(rows) * len(changes))
    return {
        name: Outputs(*(np.concatenate(parts) for parts in zip(*column, strict=True)))
        for name, column in zip(changes, zip(*rows, strict=True), strict=True)
    }


def evaluate(
    backend: Backend, files: LabelledFiles, progress: Callable[[int], object] = lambda _: None, *, threads: int = 1
) -> EvaluationResults:
    """Predict every file, one image per prediction, on so many threads.

    Calls `progress` with the number of files done so far. Raises DatasetError when a file cannot be decoded or when
    the labels are not indices into the model's classes.
    """
    if files.classes != backend.info.classes:
        raise DatasetError("The labels do not follow the model's classes. List the images with the model's classes.")
    outputs = predict_images(backend, files.paths, progress, threads=threads)
    return compute_results(outputs.probabilities, np.asarray(files.labels), files.classes)


def _leave_unchanged(pixels: Pixels) -> Pixels:
    return pixels
