from __future__ import annotations

import pytest

from model.quality.estimate import ConfidenceSums
from model.quality.intervals import find_wilson_interval
from model.quality.results import LabelledPredictions, VersionQuality, compute_quality


def label(**predicted: dict[str, int]) -> LabelledPredictions:
    """Make predictions, given their numbers by true and predicted class, each with a confidence of 0.8."""
    labelled = LabelledPredictions()
    for true, counts in predicted.items():
        for name, count in counts.items():
            for _ in range(count):
                labelled.add(name, 0.8, true)
    return labelled


@pytest.fixture
def quality() -> VersionQuality:
    """26 of 30 forests, 15 of 20 rivers and 19 of 19 beaches are recognised; 500 predictions, 7 abstentions."""
    labelled = label(
        river={"river": 15, "beach": 2, "forest": 3}, forest={"forest": 26, "river": 4}, beach={"beach": 19}
    )
    return compute_quality("1.1", labelled, ConfidenceSums(500, 450.0, 30.0), 7)


def test_accuracy_has_wilson_s_interval(quality: VersionQuality) -> None:
    """The accuracy is the share of labelled predictions that are correct, with its interval."""
    assert (quality.version, quality.predictions, quality.abstained, quality.labelled) == ("1.1", 500, 7, 69)
    assert quality.accuracy == find_wilson_interval(60 / 69, 69)


def test_calibration_error_compares_confidence_and_accuracy(quality: VersionQuality) -> None:
    """All confidences are equal, so the error is the gap between them and the accuracy."""
    assert quality.ece == pytest.approx(60 / 69 - 0.8)


def test_estimate_needs_no_labels(quality: VersionQuality) -> None:
    """The estimate covers all predictions, and depends only on the sums of their confidence."""
    estimate = quality.estimated_accuracy
    assert estimate is not None
    assert (estimate.value, estimate.lower) == pytest.approx((0.9, 0.9 - 1.959964 * 30**0.5 / 500))
    assert compute_quality("1.1", label(), ConfidenceSums(500, 450.0, 30.0), 7).estimated_accuracy == estimate


def test_classes_need_twenty_labels(quality: VersionQuality) -> None:
    """A class with 20 labels has its own results; a class with 19 is only counted."""
    assert [(each.label, each.labelled) for each in quality.classes] == [("forest", 30), ("river", 20)]
    assert quality.few_labels == {"beach": 19}


def test_confusions_are_shares_of_the_true_class(quality: VersionQuality) -> None:
    """Each class lists the classes it was mistaken for, most frequent first, with the interval of the share."""
    forest, river = quality.classes
    assert forest.recall == find_wilson_interval(26 / 30, 30)
    assert [(each.predicted, each.count) for each in river.confusions] == [("forest", 3), ("beach", 2)]
    assert river.confusions[0].share == find_wilson_interval(3 / 20, 20)


def test_without_labels_there_is_no_accuracy() -> None:
    """Without labels, neither accuracy nor calibration error is known."""
    quality = compute_quality("1.1", label(), ConfidenceSums(), 3)
    assert (quality.accuracy, quality.ece, quality.estimated_accuracy) == (None, None, None)
    assert (quality.classes, quality.few_labels) == ((), {})
