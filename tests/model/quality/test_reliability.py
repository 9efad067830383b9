from __future__ import annotations

import numpy as np
import pytest

from model.quality.reliability import expected_calibration_error, make_bins


def test_bins_have_equal_mass() -> None:
    """100 images fill 15 bins of 6 or 7 in ascending order of confidence, however the confidences are distributed."""
    confidence = np.random.default_rng(0).beta(8, 1, 100)
    bins = make_bins(confidence, np.ones(100, bool))
    assert [each.n for each in bins] == [7] * 10 + [6] * 5
    assert bins[0].confidence == pytest.approx(np.sort(confidence)[:7].mean())
    assert [each.confidence for each in bins] == sorted(each.confidence for each in bins)


def test_error_matches_a_manual_calculation() -> None:
    """In 15 pairs, at 0.42, 0.46 … 0.98, one of two images is correct: the mean of |0.42 - 0.5|, |0.46 - 0.5| …"""
    confidence = np.repeat(np.arange(0.42, 0.99, 0.04), 2)
    correct = np.tile([True, False], 15)
    expected = (0.08 + 0.04 + 0 + 0.04 * sum(range(1, 13))) / 15
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_error_of_fewer_images_than_bins_compares_each_image() -> None:
    """Two images, at 0.9 and wrong, at 0.6 and correct: (0.9 + 0.4) / 2."""
    assert expected_calibration_error(np.array([0.9, 0.6]), np.array([False, True])) == pytest.approx(0.65)


def test_error_does_not_depend_on_the_order_of_images() -> None:
    """Images of equal confidence give the same error in any order, even where a bin boundary separates them."""
    generator = np.random.default_rng(1)
    confidence = generator.choice(np.array([0.7, 0.95, 1.0], np.float32), 200)
    correct = generator.random(200) < 0.9
    orders = [np.arange(200), np.lexsort((correct, confidence)), np.lexsort((~correct, confidence))]
    errors = [expected_calibration_error(confidence[order], correct[order]) for order in orders]
    assert errors[1:] == [pytest.approx(errors[0], abs=1e-12)] * 2


def test_equal_confidences_count_with_their_common_accuracy() -> None:
    """200 images at 0.75, of which 150 are correct, are perfectly calibrated, although the wrong ones come last."""
    correct = np.arange(200) < 150
    assert expected_calibration_error(np.full(200, 0.75), correct) == pytest.approx(0)
