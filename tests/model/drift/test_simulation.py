"""How soon the detector finds a shift, and how often it raises false alarms: simulated callers with real images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from model.drift.detector import Alarm, DriftDetector
from model.drift.metrics import Metric, Observations
from model.sequential.changes import Floats, average_wealth

RUNS = 1000
NEVER = 10**9
Indices = NDArray[np.int64]


def find_alarms(detector: DriftDetector, images: Observations, indices: Indices) -> Indices:
    """The prediction at which each run raises its first alarm; `indices` [predictions, runs] choose the images.

    This is the detector in NumPy, for many runs at once; a test shows that its results are those of the real one.
    """
    growth = detector.compute_growth(images.classes, detector.rank(images)).astype(np.float32)
    wealth = np.zeros((indices.shape[1], *growth.shape[1:]), np.float32)
    found = np.full(indices.shape[1], NEVER)
    for number, chosen in enumerate(indices):
        np.maximum(wealth, 0, out=wealth)
        wealth += growth[chosen]
        if wealth.max() >= detector.rules.log_threshold:  # an average cannot exceed the maximum
            found[_reach_threshold(detector, wealth.astype(float)) & (found == NEVER)] = number + 1
    return found


def _reach_threshold(detector: DriftDetector, wealth: Floats) -> NDArray[np.bool_]:
    averages = [average_wealth(wealth[:, tests]) for tests in detector.slices.values()]
    reached: NDArray[np.bool_] = np.max(averages, axis=0) >= detector.rules.log_threshold
    return reached


def join(*groups: Observations) -> Observations:
    return Observations(
        np.concatenate([each.classes for each in groups]),
        np.concatenate([each.measures for each in groups]),
        np.concatenate([each.times for each in groups]),
    )


def without(images: Observations, *metrics: Metric) -> Observations:
    """The observations, with some metrics unknown."""
    measures = images.measures.copy()
    for metric in metrics:
        if metric is not Metric.CLASS_MIX:
            measures[:, list(Metric).index(metric) - 1] = np.nan
    is_mixed = Metric.CLASS_MIX in metrics
    return Observations(np.full_like(images.classes, -1) if is_mixed else images.classes, measures, images.times)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(2026)


def test_false_alarms_are_rare(
    detector: DriftDetector, features: Mapping[str, Observations], generator: np.random.Generator
) -> None:
    """At most 1 % of 1,000 callers who send images like those of training are reported within 5,000 predictions.

    The images are from the test set; the reference was built from the validation images.
    """
    images = features["test"]
    indices = generator.integers(0, len(images), (5000, RUNS))
    assert (find_alarms(detector, images, indices) < NEVER).mean() <= 0.01


@pytest.mark.parametrize(
    ("group", "hidden"),
    [
        ("another sensor", ()),
        # The tiles of this sensor are larger, and nearly all show forest. It is found even without these metrics.
        ("another sensor", (Metric.IMAGE_SIZE, Metric.CLASS_MIX)),
        ("test, brightness x0.8", ()),
        ("test, brightness x0.6", ()),
        ("photographs", ()),
        ("photographs", (Metric.IMAGE_SIZE, Metric.CLASS_MIX)),
        ("samples", ()),
    ],
)
def test_a_shift_is_found_within_200_predictions(
    detector: DriftDetector,
    features: Mapping[str, Observations],
    generator: np.random.Generator,
    group: str,
    hidden: tuple[Metric, ...],
) -> None:
    """In at least 95 % of 1,000 runs, a shift after 500 normal predictions is found within the next 200."""
    normal, shifted = features["test"], features[group]
    images = without(join(normal, shifted), *hidden)
    before = generator.integers(0, len(normal), (500, RUNS))
    after = len(normal) + generator.integers(0, len(shifted), (200, RUNS))
    found = find_alarms(detector, images, np.concatenate((before, after)))
    assert ((found > 500) & (found < NEVER)).mean() >= 0.95


def test_simulated_detector_finds_what_the_real_one_does(
    detector: DriftDetector, features: Mapping[str, Observations], generator: np.random.Generator
) -> None:
    """In each run, the real detector raises its first alarm at the same prediction as its form in NumPy."""
    images = join(features["test"], features["test, brightness x0.8"])
    indices = np.concatenate((generator.integers(0, 210, (300, 5)), generator.integers(210, 420, (200, 5))))
    found = find_alarms(detector, images, indices)
    for run in range(5):
        chosen = images.select(indices[:, run].tolist())
        numbered = Observations(chosen.classes, chosen.measures, np.arange(1.0, 501))
        events = detector.update(detector.begin(), numbered)
        assert min(event.at for event in events if isinstance(event, Alarm)) == found[run]
