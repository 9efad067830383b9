"""How good a back end is on labelled images: through the decoder and the runtime that serve requests."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.backends import Backend
from model.errors import DatasetError
from model.offline.dataset import LabelledFiles, read_image
from model.offline.metrics import EvaluationResults, measure


def evaluate(
    backend: Backend, files: LabelledFiles, progress: Callable[[int], object] = lambda _: None
) -> EvaluationResults:
    """Predict every file, one by one on as many threads as cores; `progress` is told how many are done.

    Raises DatasetError for a file that cannot be decoded, or labels that do not follow the model's classes.
    """
    if files.classes != backend.info.classes:
        raise DatasetError("The labels do not follow the model's classes. List the images with the model's classes.")

    def probabilities(path: Path) -> NDArray[np.float32]:
        row: NDArray[np.float32] = backend.predict(read_image(path).pixels[np.newaxis])[0]
        return row

    rows: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in pool.map(probabilities, files.paths):
            rows.append(row)
            progress(len(rows))
    return measure(np.stack(rows), np.asarray(files.labels), files.classes)
