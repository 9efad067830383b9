from __future__ import annotations

import numpy as np
import pytest

from model.offline.confidence_results import compute_prediction_sets
from model.offline.fitting.scores import compute_scores
from model.offline.fitting.thresholds import choose_gate_threshold, choose_min_confidence


def test_gate_passes_as_many_scenes_as_the_photographs_allow() -> None:
    """Where scenes and photographs are far apart, the threshold is the lowest that rejects 93 % of the photographs."""
    photographs, scenes = np.linspace(-10, -1, 1001), np.linspace(1, 9, 500)
    threshold = choose_gate_threshold(scenes, scenes, photographs)
    assert (photographs < threshold).mean() == pytest.approx(0.93, abs=0.002)
    assert threshold < scenes.min()


def test_gate_rejects_few_scenes_where_both_overlap() -> None:
    """Where both overlap slightly, at most 2 % of the clean and 3 % of the changed scenes are rejected."""
    photographs = np.linspace(-9.3, 0.7, 1001)
    clean, changed = np.linspace(-0.1, 9, 1001), np.linspace(-0.2, 9, 1001)
    threshold = choose_gate_threshold(clean, changed, photographs)
    assert (clean < threshold).mean() <= 0.02
    assert (changed < threshold).mean() <= 0.03
    assert 0.91 <= (photographs < threshold).mean() < 0.93


def test_gate_rejects_most_photographs_in_any_case() -> None:
    """Where both overlap completely, 91 % of the photographs are rejected, and as many of the scenes."""
    same = np.linspace(-5, 5, 1001)
    threshold = choose_gate_threshold(same, same, same)
    assert (same < threshold).mean() == pytest.approx(0.91, abs=0.002)


def test_accepted_changed_images_are_correct() -> None:
    """The threshold is the smallest confidence above which 98 % of the changed images are correct."""
    generator = np.random.default_rng(1)
    changed = generator.random(5000)
    correct = generator.random(5000) < 0.6 + 0.4 * changed
    clean = np.linspace(0.98, 1, 200)
    threshold = choose_min_confidence(clean, changed, correct)
    assert correct[changed >= threshold].mean() >= 0.98
    assert correct[changed >= threshold - 0.02].mean() < 0.985
    assert 0.5 < threshold < 0.99


def test_images_of_equal_confidence_are_accepted_together() -> None:
    """If the wrong images have the same confidence as correct ones, the threshold is above it."""
    changed = np.array([0.6] * 10 + [0.9] * 90)
    correct = np.array([False] * 5 + [True] * 95)
    for order in (np.arange(100), np.arange(100)[::-1]):
        assert choose_min_confidence(np.full(1000, 0.95), changed[order], correct[order]) == 0.9


def test_few_clean_images_are_unsure() -> None:
    """At most 5 % of the clean images are below the threshold, even if all changed images are wrong."""
    clean = np.linspace(0.3, 1, 200)
    threshold = choose_min_confidence(clean, np.linspace(0, 1, 500), np.zeros(500, np.bool_))
    assert 0.03 <= (clean < threshold).mean() <= 0.05


def test_model_that_is_correct_on_changed_images_is_never_unsure() -> None:
    """If at least 98 % of all changed images are correct, the threshold is 0."""
    correct = np.arange(1000) % 60 != 0
    assert choose_min_confidence(np.linspace(0.5, 1, 50), np.linspace(0, 1, 1000), correct) == 0.0


def test_scores_ascend_and_cover() -> None:
    """The scores are 1 minus the probability of the true class, and sets built from them have the desired coverage."""
    generator = np.random.default_rng(2)
    powers = np.exp(generator.normal(0, 2, (3000, 4)))
    probabilities = np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
    draws = generator.random((3000, 1)) > probabilities.cumsum(axis=1)
    labels = np.minimum(draws.sum(axis=1), 3)
    sets = compute_scores(probabilities[:1500], labels[:1500])
    assert np.all(np.diff(sets.scores) >= 0)
    assert 1 - probabilities[0, labels[0]] in sets.scores
    results = compute_prediction_sets(sets, probabilities[1500:], probabilities[1500:], labels[1500:], 0.9)
    assert results.coverage == pytest.approx(0.9, abs=0.03)
