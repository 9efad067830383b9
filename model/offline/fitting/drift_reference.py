"""Measure the drift reference: a model's predictions on images that were not used in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from model.backends.base import Backend
from model.drift.metrics import Observations, measure
from model.drift.reference import MIN_IMAGES, Reference, build_reference
from model.errors import DatasetError, ImageRejected
from model.imaging.bounds import read_image_file
from model.serving.prediction import Prediction, predict_image


def measure_reference(backend: Backend, paths: Sequence[Path], threads: int = 1) -> Reference | None:
    """Predict each file as the gateway does, and build the reference; None for too few files.

    Raises DatasetError if a file is too large or cannot be decoded.
    """
    if len(paths) < MIN_IMAGES:
        return None
    with ThreadPoolExecutor(threads) as pool:
        predictions = list(pool.map(lambda path: _predict(backend, path), paths))
    return build_reference(observe_predictions(predictions), backend.info.classes)


def observe_predictions(predictions: Sequence[Prediction]) -> Observations:
    """Return the observations for drift, with all times 0."""
    measures = [
        measure(
            confidence=each.confidence,
            gate_score=math.nan if each.gate_score is None else each.gate_score,
            brightness=each.image.brightness,
            sharpness=each.image.sharpness,
            width=each.image.width,
            height=each.image.height,
        )
        for each in predictions
    ]
    return Observations(
        np.array([each.index for each in predictions], np.int64), np.array(measures), np.zeros(len(predictions))
    )


def _predict(backend: Backend, path: Path) -> Prediction:
    try:
        return predict_image(backend, read_image_file(path))
    except ImageRejected as error:
        raise DatasetError(f"{path}: {error} Repair or remove the file.") from error
