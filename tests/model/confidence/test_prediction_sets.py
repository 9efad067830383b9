"""Conformal prediction sets: their ranks, their limits and their coverage."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from model.confidence.calibration import calibrate
from model.confidence.prediction_sets import ConformalScores

NINE = ConformalScores((np.arange(1, 10) / 10).astype(np.float32))  # 0.1 to 0.9


def row(*probabilities: float) -> NDArray[np.float32]:
    return np.array(probabilities, np.float32)


def find_labels(scores: ConformalScores, probabilities: NDArray[np.float32], coverage: float) -> list[int]:
    """The set of a model that needs no calibration."""
    return scores.find_labels(probabilities, probabilities, coverage)


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        (0.5, [1]),  # rank 5 of 10: probabilities of at least 0.5
        (0.7, [1, 2]),  # rank 7: at least 0.3
        (0.71, [1, 2]),  # rank 8: at least 0.2
        (0.9, [1, 2, 0]),  # rank 9, the last one: at least 0.1
        (0.91, [1, 2, 0, 3]),  # rank 10 does not exist
    ],
)
def test_the_score_at_the_rank_of_the_coverage_is_the_limit(coverage: float, expected: list[int]) -> None:
    """The rank of the limit is the coverage times the number of scores plus one, rounded up."""
    assert find_labels(NINE, row(0.11, 0.51, 0.31, 0.07), coverage) == expected


def test_the_rank_of_a_coverage_is_exact() -> None:
    """0.07 of 100 is rank 7, although the product of these floating-point numbers is greater than 7."""
    scores = ConformalScores((np.arange(1, 100) / 100).astype(np.float32))  # 0.01 to 0.99
    assert find_labels(scores, row(0.94, 0.925, 0.92), 0.07) == [0]


def test_more_than_the_scores_can_guarantee_gives_all_labels() -> None:
    """Nine scores guarantee a coverage of at most 0.9; above it, the set has every class, even an impossible one."""
    assert find_labels(NINE, row(0, 1, 0), 0.95) == [1, 0, 2]


def test_a_set_is_never_empty() -> None:
    """If no class reaches the limit, the set contains the most probable one."""
    confident = ConformalScores(np.full(99, 0.01, np.float32))
    assert find_labels(confident, row(0.2, 0.5, 0.3), 0.9) == [1]


@pytest.mark.parametrize("temperature", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_the_first_label_of_a_set_is_the_label(temperature: float, coverage: float) -> None:
    """The set begins with the model's label, even if calibration rounds several probabilities to the same value."""
    probabilities = row(0.25, np.nextafter(np.float32(0.25), np.float32(1)), 0.25, 0.25)
    calibrated = calibrate(probabilities, temperature)
    scores = ConformalScores(np.linspace(0, 0.5, 99, dtype=np.float32))
    assert len(set(calibrated.tolist())) == 1
    assert scores.find_labels(probabilities, calibrated, coverage)[0] == 1


def test_a_larger_coverage_keeps_the_labels_of_a_smaller_one() -> None:
    """The set for a larger coverage contains the set for a smaller one."""
    probabilities = np.random.default_rng(3).dirichlet(np.full(21, 0.3)).astype(np.float32)
    scores = ConformalScores(np.sort(np.random.default_rng(4).random(200).astype(np.float32)))
    sets = [set(find_labels(scores, probabilities, coverage)) for coverage in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)]
    assert all(smaller <= larger for smaller, larger in pairwise(sets))


@pytest.mark.parametrize("coverage", [0.6, 0.8, 0.95])
def test_the_true_class_is_covered_as_often_as_promised(coverage: float) -> None:
    """Even for a badly calibrated model, at least the promised share of sets, within 0.02, contains the true class."""
    generator, hits, trials = np.random.default_rng(5), 0, 4000
    for _ in range(trials // 40):
        # The model is overconfident: only a tenth of its belief is true, and the rest is uniform.
        beliefs = generator.dirichlet(np.full(5, 0.5), 100)
        true = [generator.choice(5, p=0.9 / 5 + 0.1 * belief) for belief in beliefs]
        held_out, scored = beliefs[:60], np.array(true[:60])
        scores = ConformalScores(np.sort(1 - held_out[np.arange(60), scored]).astype(np.float32))
        pairs = zip(beliefs[60:].astype(np.float32), true[60:], strict=True)
        hits += sum(label in find_labels(scores, belief, coverage) for belief, label in pairs)
    assert hits / trials >= coverage - 0.02
