"""Compute a classifier's results from its probabilities: accuracy, macro F1, log loss and calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct, to_builtins
from numpy.typing import NDArray

from model.quality.reliability import expected_calibration_error


class ClassResults(Struct, frozen=True):
    """Precision, recall and F1 of one class. `support` is the number of images that belong to it."""

    precision: float
    recall: float
    f1: float
    support: int


class EvaluationResults(Struct, frozen=True):
    """Results of a model on `n` labelled images.

    `loss` is the mean of -ln(probability of the true class), `ece` the expected calibration error with 15 bins of equal
    mass (model/quality/reliability.py), and `confidence` the mean of the largest probability.
    """

    n: int
    accuracy: float
    macro_f1: float
    loss: float
    ece: float
    confidence: float
    per_class: dict[str, ClassResults]
    confusion: list[list[int]]

    def as_dict(self) -> dict[str, Any]:
        """Return the results as plain dictionaries, lists and numbers, for JSON."""
        document: dict[str, Any] = to_builtins(self)
        return document


def compute_results(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], classes: Sequence[str]
) -> EvaluationResults:
    """Compare probabilities, float [n, classes], with the true labels, integer [n].

    Macro F1 averages over the classes that have at least one image. `confusion[true][predicted]` counts images.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    per_class = {name: _compute_class_results(confusion, index) for index, name in enumerate(classes)}
    true_class = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return EvaluationResults(
        n=len(labels),
        accuracy=float((predicted == labels).mean()),
        macro_f1=float(np.mean([results.f1 for results in per_class.values() if results.support])),
        loss=float(-np.log(np.clip(true_class, 1e-12, 1.0)).mean()),
        ece=expected_calibration_error(confidence, predicted == labels),
        confidence=float(confidence.mean(dtype=np.float64)),
        per_class=per_class,
        confusion=confusion.tolist(),
    )


def _compute_class_results(confusion: NDArray[np.int64], index: int) -> ClassResults:
    true_positives = int(confusion[index, index])
    support = int(confusion[index].sum())
    predictions = int(confusion[:, index].sum())
    return ClassResults(
        precision=true_positives / predictions if predictions else 0.0,
        recall=true_positives / support if support else 0.0,
        f1=2 * true_positives / (support + predictions) if support + predictions else 0.0,
        support=support,
    )
