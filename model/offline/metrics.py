"""Figures of a classifier from its probabilities: accuracy, macro F1, log loss, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class ClassResults:
    """Precision, recall and F1 of one class, and how many images truly carry it."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class EvaluationResults:
    """A model's figures on `n` labelled images; `ece` is the expected calibration error (Guo et al., 2017)."""

    n: int
    accuracy: float
    macro_f1: float
    loss: float
    ece: float
    per_class: dict[str, ClassResults]
    confusion: list[list[int]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], classes: Sequence[str]
) -> EvaluationResults:
    """Judge float [n, classes] probabilities against integer [n] labels.

    Macro F1 averages the classes that have at least one image. `confusion[true][predicted]` counts images.
    """
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    per_class = {name: _class_results(confusion, index) for index, name in enumerate(classes)}
    true_class = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return EvaluationResults(
        n=len(labels),
        accuracy=float((predicted == labels).mean()),
        macro_f1=float(np.mean([results.f1 for results in per_class.values() if results.support])),
        loss=float(-np.log(np.clip(true_class, 1e-12, 1.0)).mean()),
        ece=expected_calibration_error(probabilities.max(axis=1), predicted == labels),
        per_class=per_class,
        confusion=confusion.tolist(),
    )


def expected_calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """Mean gap between confidence and accuracy over 15 equal bins, weighted by their counts."""
    bins = np.minimum((confidence * _ECE_BINS).astype(int), _ECE_BINS - 1)
    gaps = [
        abs(float(confidence[bins == index].mean()) - float(correct[bins == index].mean())) * (bins == index).mean()
        for index in np.unique(bins)
    ]
    return float(sum(gaps))


def _class_results(confusion: NDArray[np.int64], index: int) -> ClassResults:
    hits = int(confusion[index, index])
    support = int(confusion[index].sum())
    called = int(confusion[:, index].sum())
    return ClassResults(
        precision=hits / called if called else 0.0,
        recall=hits / support if support else 0.0,
        f1=2 * hits / (support + called) if support + called else 0.0,
        support=support,
    )
