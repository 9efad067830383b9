from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.confidence.calibration import calibrate
from model.offline.fitting.temperature import compute_log_loss, fit_temperature


def make_softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def draw_labels(generator: np.random.Generator, probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Draw a label for each row with the row's probabilities."""
    cumulative = probabilities.cumsum(axis=1)
    draws = generator.random((len(probabilities), 1)) * cumulative[:, -1:]
    return np.asarray((draws > cumulative).sum(axis=1), np.int64)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_known_temperature_is_recovered(temperature: float) -> None:
    """Labels drawn from softmax(logits / T) give T, for overconfident and for underconfident models."""
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (20_000, 5))
    labels = draw_labels(generator, make_softmax(logits / temperature))
    fitted = fit_temperature(make_softmax(logits), labels, np.ones(len(labels)))
    assert fitted == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_has_a_smaller_loss() -> None:
    """The weighted log loss grows on both sides of the fitted temperature."""
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 2, (300, 4))
    labels, weights = draw_labels(generator, make_softmax(logits)), generator.random(300)
    probabilities = make_softmax(logits)
    fitted = fit_temperature(probabilities, labels, weights)

    def loss(temperature: float) -> float:
        return compute_log_loss(calibrate(probabilities, temperature), labels, weights)

    assert loss(fitted) < min(loss(fitted * 0.98), loss(fitted * 1.02))


def test_weights_choose_between_groups() -> None:
    """Images with a weight of 0 do not change the temperature."""
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, (8_000, 5))
    labels = draw_labels(generator, make_softmax(logits))
    labels[4_000:] = generator.integers(0, 5, 4_000)
    weights = np.repeat([1.0, 0.0], 4_000)
    assert fit_temperature(make_softmax(logits), labels, weights) == pytest.approx(1.0, rel=0.08)


def test_errorless_validation_stays_in_range() -> None:
    """A model without errors gets a small temperature of at least 0.1."""
    probabilities = np.full((10, 2), [0.9, 0.1], np.float32)
    assert 0.1 <= fit_temperature(probabilities, np.zeros(10, np.int64), np.ones(10)) < 0.2
