"""When a model abstains, and why."""

from __future__ import annotations

import numpy as np
import pytest

from model.confidence.abstention import AbstentionReason, AbstentionRules, AerialGate

GATE = AerialGate(np.array([1, -2], np.float32), 0.5)
AERIAL = np.array([1, 0], np.float32)
OTHER = np.array([0, 1], np.float32)


def test_the_gate_is_linear_and_aerial_scenes_score_above_zero() -> None:
    """The score is the dot product of the features and the weights, plus the bias."""
    assert GATE.score(AERIAL) == pytest.approx(1.5)
    assert GATE.score(OTHER) == pytest.approx(-1.5)


def test_a_negative_score_means_another_image() -> None:
    """The gate decides first: an image with a negative score is not aerial, whatever the confidence."""
    rules = AbstentionRules(GATE, 0.5)
    assert rules.find_reason(rules.score(OTHER), 0.99) is AbstentionReason.NOT_AERIAL
    assert rules.find_reason(rules.score(OTHER), 0.01) is AbstentionReason.NOT_AERIAL
    assert rules.find_reason(rules.score(AERIAL), 0.01) is AbstentionReason.LOW_CONFIDENCE
    assert rules.find_reason(rules.score(AERIAL), 0.99) is None


def test_thresholds_belong_to_the_accepted_side() -> None:
    """A score of exactly 0 and a confidence of exactly the minimum are accepted."""
    rules = AbstentionRules(AerialGate(np.array([1], np.float32), -1.0), 0.25)
    assert rules.find_reason(rules.score(np.array([1], np.float32)), 0.25) is None


def test_a_model_without_rules_never_abstains() -> None:
    """Without a gate and a minimum confidence, the model does not abstain, even at a confidence of 0."""
    assert AbstentionRules().find_reason(AbstentionRules().score(OTHER), 0.0) is None
