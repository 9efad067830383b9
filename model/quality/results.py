"""The quality of one version of a model on live traffic.

All results leave out predictions for which the model abstained: it advised against relying on them, and an image that
is not an aerial scene has no true class. Leaving out predictions of low confidence does not bias the estimate, because
each of the others is still correct with the probability given by its confidence.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping

import numpy as np
from msgspec import Struct, field

from model.quality.estimate import ConfidenceSums, estimate_accuracy
from model.quality.intervals import Interval, find_wilson_interval
from model.quality.reliability import expected_calibration_error

MIN_CLASS_LABELS = 20
"""A class with fewer labels gets no results: its interval could be 40 percentage points wide."""


class LabelledPredictions(Struct):
    """Predictions of one version with their true classes. Each takes nine bytes."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by true and predicted class
    confidence: array[float] = field(default_factory=lambda: array("d"))
    correct: bytearray = field(default_factory=bytearray)

    def add(self, predicted: str, confidence: float, label: str) -> None:
        """Add a predicted class with its calibrated confidence, and the true class."""
        self.counts[label, predicted] += 1
        self.confidence.append(confidence)
        self.correct.append(predicted == label)

    def __len__(self) -> int:
        return len(self.correct)


class Confusion(Struct, frozen=True):
    """The number of images of a class that were predicted as another class, and their share of the class."""

    predicted: str
    count: int
    share: Interval


class ClassQuality(Struct, frozen=True):
    """Results of one true class. `recall` is the share of its images that were classified correctly."""

    label: str
    labelled: int
    recall: Interval
    confusions: tuple[Confusion, ...] = field(default=())  # most frequent first


class VersionQuality(Struct, frozen=True):
    """Results of one version. `predictions` and `labelled` leave out the `abstained` ones.

    `few_labels` has the number of labels of each class that has too few for results.
    """

    version: str
    predictions: int
    abstained: int
    labelled: int
    accuracy: Interval | None
    ece: float | None
    estimated_accuracy: Interval | None
    classes: tuple[ClassQuality, ...]
    few_labels: Mapping[str, int]


def compute_quality(
    version: str, labelled: LabelledPredictions, sums: ConfidenceSums, abstained: int
) -> VersionQuality:
    """Compare labelled predictions with their labels, and estimate the accuracy of all predictions from `sums`."""
    by_class = Counter[str]()
    for (label, _), n in labelled.counts.items():
        by_class[label] += n
    correct = np.frombuffer(labelled.correct, np.bool_)
    confidence = np.frombuffer(labelled.confidence, np.float64)
    large_classes = sorted(name for name, n in by_class.items() if n >= MIN_CLASS_LABELS)
    return VersionQuality(
        version=version,
        predictions=sums.n,
        abstained=abstained,
        labelled=len(labelled),
        accuracy=find_wilson_interval(float(correct.mean()), len(correct)) if labelled else None,
        ece=expected_calibration_error(confidence, correct) if labelled else None,
        estimated_accuracy=estimate_accuracy(sums),
        classes=tuple(_compute_class(name, by_class[name], labelled.counts) for name in large_classes),
        few_labels={name: n for name, n in sorted(by_class.items()) if n < MIN_CLASS_LABELS},
    )


def _compute_class(name: str, labelled: int, counts: Counter[tuple[str, str]]) -> ClassQuality:
    wrong = [(predicted, n) for (label, predicted), n in counts.items() if label == name and predicted != name]
    return ClassQuality(
        label=name,
        labelled=labelled,
        recall=find_wilson_interval(counts[name, name] / labelled, labelled),
        confusions=tuple(
            Confusion(predicted, n, find_wilson_interval(n / labelled, labelled))
            for predicted, n in sorted(wrong, key=lambda pair: (-pair[1], pair[0]))
        ),
    )
