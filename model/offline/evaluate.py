"""Measure a back end on labelled images, with the decoder and the runtime that serve requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict
from numpy.typing import NDArray

from model.backends.base import Backend, ModelInfo
from model.confidence.abstention import AbstentionRules
from model.confidence.calibration import calibrate
from model.errors import DatasetError
from model.offline.changes import CLEAN, SIX_CHANGES, Pixels, leave_unchanged
from model.offline.confidence_results import (
    AbstentionResults,
    PredictionSetResults,
    compute_abstention,
    compute_prediction_sets,
)
from model.offline.dataset import LabelledFiles, read_image
from model.offline.metrics import EvaluationResults, compute_results


class Outputs(Struct, frozen=True, eq=False):
    """A model's outputs for n images: raw `probabilities`, float32 [n, classes], and `pooled` features.

    `pooled` is float32 [n, channels], the mean of each of the last feature maps.
    """

    probabilities: NDArray[np.float32]
    pooled: NDArray[np.float32]


class Evaluation(Struct, frozen=True):
    """Results on labelled images: `served` with calibrated probabilities, `raw` with uncalibrated ones.

    `abstention` is None for a model without rules. `sets` is None if no coverage was chosen or the model has no scores.
    """

    served: EvaluationResults
    raw: EvaluationResults
    temperature: float
    abstention: AbstentionResults | None
    sets: PredictionSetResults | None

    def as_dict(self) -> dict[str, Any]:
        """Return everything except the results by class, for JSON."""
        return {
            "n": self.served.n,
            "accuracy": self.served.accuracy,
            "macro_f1": self.served.macro_f1,
            "loss": self.served.loss,
            "loss_raw": self.raw.loss,
            "ece": self.served.ece,
            "ece_raw": self.raw.ece,
            "confidence": self.served.confidence,
            "confidence_raw": self.raw.confidence,
            "temperature": self.temperature,
            "abstention": self.abstention and asdict(self.abstention),
            "prediction_sets": self.sets and asdict(self.sets),
        }

    def summarise(self) -> dict[str, float]:
        """Return the results to compare between changes: those with calibrated probabilities, and the raw error."""
        abstained = self.abstention.reasons if self.abstention else {}
        coverage = {"coverage": self.sets.coverage} if self.sets else {}
        return {
            "accuracy": self.served.accuracy,
            "ece": self.served.ece,
            "ece_raw": self.raw.ece,
            "confidence": self.served.confidence,
            **abstained,
            **coverage,
        }


def predict_images(
    backend: Backend,
    images: Sequence[Path] | Sequence[Pixels],
    progress: Callable[[int], object] = lambda _: None,
    *,
    threads: int = 1,
) -> Outputs:
    """Predict the images one by one on `threads` threads. The outputs are in the order of the images.

    An image is a file, or pixels in the size of the model's input. Calls `progress` with the number of images done so
    far. Raises DatasetError if a file cannot be decoded.
    """
    return predict_changed_images(backend, images, {CLEAN: leave_unchanged}, progress, threads=threads)[CLEAN]


def predict_changed_images(
    backend: Backend,
    images: Sequence[Path] | Sequence[Pixels],
    changes: Mapping[str, Callable[[Pixels], Pixels]],
    progress: Callable[[int], object] = lambda _: None,
    *,
    threads: int = 1,
) -> dict[str, Outputs]:
    """Predict every image under each change, as `predict_images` does. Each file is decoded once.

    Calls `progress` with the number of predictions done so far.
    """

    def predict(image: Path | Pixels) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        pixels = read_image(image, backend.info.input_spec).pixels if isinstance(image, Path) else image
        return [backend.predict_pooled(change(pixels)[np.newaxis]) for change in changes.values()]

    probabilities: dict[str, list[NDArray[np.float32]]] = {name: [] for name in changes}
    pooled: dict[str, list[NDArray[np.float32]]] = {name: [] for name in changes}
    with ThreadPoolExecutor(threads) as pool:
        for done, outputs in enumerate(pool.map(predict, images), 1):
            for name, (image_probabilities, image_pooled) in zip(changes, outputs, strict=True):
                probabilities[name].append(image_probabilities)
                pooled[name].append(image_pooled)
            progress(done * len(changes))
    return {name: Outputs(np.concatenate(probabilities[name]), np.concatenate(pooled[name])) for name in changes}


def evaluate(outputs: Outputs, files: LabelledFiles, info: ModelInfo, coverage: float | None = None) -> Evaluation:
    """Compare the outputs of a model for the files with their labels.

    With `coverage`, in (0, 1), prediction sets are evaluated if the model has conformal scores. Raises DatasetError
    if the labels are not indices into the model's classes.
    """
    if files.classes != info.classes:
        raise DatasetError("The labels do not follow the model's classes. List the images with the model's classes.")
    labels, confidence = np.asarray(files.labels), info.confidence
    calibrated = calibrate(outputs.probabilities, confidence.temperature)
    abstention = sets = None
    if confidence.abstention != AbstentionRules():
        abstention = compute_abstention(confidence.abstention, outputs.pooled, calibrated, labels)
    if confidence.sets is not None and coverage is not None:
        sets = compute_prediction_sets(confidence.sets, outputs.probabilities, calibrated, labels, coverage)
    return Evaluation(
        served=compute_results(calibrated, labels, files.classes),
        raw=compute_results(outputs.probabilities, labels, files.classes),
        temperature=confidence.temperature,
        abstention=abstention,
        sets=sets,
    )


def average_six_changes(evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    """Return the means of the results under SIX_CHANGES. The mean accuracy is the robustness of the model."""
    summaries = [evaluations[name].summarise() for name in SIX_CHANGES]
    return {key: fmean(summary[key] for summary in summaries) for key in summaries[0]}
