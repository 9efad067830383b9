"""Temperature scaling of probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.confidence.calibration import calibrate

TEMPERATURES = [0.3, 0.8, 1.7, 5.0]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


@pytest.fixture(scope="module")
def logits() -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(0, 3, (200, 21))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_calibration_divides_the_logits(logits: NDArray[np.float64], temperature: float) -> None:
    """Calibration returns the softmax of the logits divided by the temperature, from probabilities alone."""
    calibrated = calibrate(softmax(logits), temperature)
    assert calibrated.dtype == np.float32
    np.testing.assert_allclose(calibrated, softmax(logits / temperature), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_calibrated_rows_are_probabilities_in_the_same_order(logits: NDArray[np.float64], temperature: float) -> None:
    """Each row adds up to 1, and no class overtakes another."""
    probabilities = softmax(logits)
    calibrated = calibrate(probabilities, temperature)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, atol=1e-6)
    ascending = np.take_along_axis(calibrated, probabilities.argsort(axis=1), axis=1)
    assert (np.diff(ascending, axis=1) >= 0).all()
    assert np.array_equal(calibrated.argmax(axis=1), probabilities.argmax(axis=1))


def test_temperature_one_changes_no_bit(logits: NDArray[np.float64]) -> None:
    """A temperature of 1 returns the probabilities unchanged."""
    probabilities = softmax(logits)
    assert np.array_equal(calibrate(probabilities, 1.0), probabilities)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_certain_predictions_stay_finite(temperature: float) -> None:
    """A probability of exactly 0, which has no logarithm, still gives finite results that add up to 1."""
    calibrated = calibrate(np.array([0, 1, 0], np.float32), temperature)
    assert np.isfinite(calibrated).all()
    assert calibrated.argmax() == 1
    assert calibrated.sum() == pytest.approx(1)


def test_one_image_gets_what_it_gets_in_a_batch(logits: NDArray[np.float64]) -> None:
    """A vector, float32 [classes], is calibrated like a row of a matrix."""
    probabilities = softmax(logits)
    np.testing.assert_allclose(calibrate(probabilities[0], 1.7), calibrate(probabilities, 1.7)[0], rtol=1e-6)
