"""Draw plots of an evaluation with Matplotlib, in a process of the Keras environment that gets the data as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict
from numpy.typing import NDArray

from model.confidence.calibration import calibrate
from model.offline.evaluate import Evaluation, Outputs, average_six_changes
from model.offline.keras_process import run_in_keras
from model.quality.intervals import find_wilson_interval
from model.quality.reliability import make_bins

_HISTOGRAM_BINS = 40


class ReliabilityCurve(Struct, frozen=True):
    """The bins for one kind of probabilities. `counts` is a histogram of the confidence from 0 to 1.

    A point is (mean confidence, accuracy, low, high), with the 95 % interval of the accuracy.
    """

    label: str
    points: list[tuple[float, float, float, float]]
    counts: list[int]


def draw_evaluation(
    path: Path,
    model: str,
    outputs: Outputs,
    labels: NDArray[np.integer],
    evaluations: Mapping[str, Evaluation],
    python: Path | None = None,
) -> None:
    """Draw a reliability diagram and, with more than one evaluation, the accuracy under each change.

    `evaluations` maps changes to evaluations, the clean images first. `outputs` and `labels` are those of the clean
    images. `python` is the interpreter of the Keras environment. Raises KerasMissing, KerasProcessFailed.
    """
    clean = next(iter(evaluations.values()))
    calibrated = calibrate(outputs.probabilities, clean.temperature)
    curves = [_make_curve(f"raw, ECE {clean.raw.ece:.3f}", outputs.probabilities, labels)]
    if clean.temperature != 1:
        label = f"calibrated (temperature {clean.temperature:.3f}), ECE {clean.served.ece:.3f}"
        curves.append(_make_curve(label, calibrated, labels))
    options: dict[str, Any] = {
        "path": str(path),
        "title": f"{model}: {clean.served.n} images, accuracy {clean.served.accuracy:.3f}",
        "curves": [asdict(curve) for curve in curves],
        "accuracies": {name: evaluation.served.accuracy for name, evaluation in evaluations.items()},
        "mean_of_six": average_six_changes(evaluations)["accuracy"] if len(evaluations) > 1 else None,
    }
    run_in_keras("model.offline.plots", options, python)


def _make_curve(label: str, probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> ReliabilityCurve:
    confidence = probabilities.max(axis=1)
    bins = make_bins(confidence, probabilities.argmax(axis=1) == labels)
    counts, _ = np.histogram(confidence, _HISTOGRAM_BINS, (0, 1))
    intervals = [find_wilson_interval(each.accuracy, each.n) for each in bins]
    points = [
        (each.confidence, each.accuracy, interval.lower, interval.upper)
        for each, interval in zip(bins, intervals, strict=True)
    ]
    return ReliabilityCurve(label, points, counts.tolist())
