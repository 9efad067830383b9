"""Measure a back end on labelled images with the same decoder and runtime that serve requests."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.backends.base import Backend
from model.errors import DatasetError
from model.offline.dataset import LabelledFiles, read_image
from model.offline.metrics import EvaluationResults, compute_results


def evaluate(
    backend: Backend, files: LabelledFiles, progress: Callable[[int], object] = lambda _: None, *, threads: int = 1
) -> EvaluationResults:
    """Predict every file, one image per prediction, on so many threads.

    Calls `progress` with the number of files done so far. Raises DatasetError when a file cannot be decoded or when
    the labels are not indices into the model's classes.
    """
    if files.classes != backend.info.classes:
        raise DatasetError("The labels do not follow the model's classes. List the images with the model's classes.")

    def predict(path: Path) -> NDArray[np.float32]:
        pixels = read_image(path, backend.info.input_spec).pixels
        probabilities: NDArray[np.float32] = backend.predict(pixels[np.newaxis])[0]
        return probabilities

    rows: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(threads) as pool:
        for row in pool.map(predict, files.paths):
            rows.append(row)
            progress(len(rows))
    return compute_results(np.stack(rows), np.asarray(files.labels), files.classes)
