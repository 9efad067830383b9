from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from model.offline.fitting.gate import GateFeatures, fit_aerial_gate, fit_gate, score_all
from model.offline.fitting.logistic import fit_logistic

CHANNELS = 40


def draw(generator: np.random.Generator, count: int, centre: float) -> NDArray[np.float32]:
    """Draw features around `centre` in five channels; the others are uninformative, and one of them is constant."""
    features = generator.normal(0, 1, (count, CHANNELS))
    features[:, :5] += centre
    features[:, -1] = 7
    return np.asarray(features * np.linspace(0.01, 50, CHANNELS), np.float32)


def make_features(generator: np.random.Generator) -> GateFeatures:
    return GateFeatures(
        scenes=draw(generator, 400, 1.5),
        other_scenes=draw(generator, 60, 1.2),
        photographs=draw(generator, 300, -1.5),
        changed_photographs=draw(generator, 300, -0.9),
        groups=np.arange(300) // 10,
        generated=draw(generator, 100, -2.5),
        clean=draw(generator, 200, 1.5),
        changed=draw(generator, 400, 1.2),
    )


def test_known_gaussians_are_separated() -> None:
    """The gate separates new draws from two Gaussians whose channels have different scales."""
    generator = np.random.default_rng(1)
    gate = fit_gate(draw(generator, 300, 1.0), draw(generator, 150, -1.0))
    assert (score_all(gate, draw(generator, 1000, 1.0)) >= 0).mean() > 0.95
    assert (score_all(gate, draw(generator, 1000, -1.0)) < 0).mean() > 0.95


def test_scores_are_those_of_the_served_gate() -> None:
    """One dot product with the folded weights, as the gateway computes it, gives the score."""
    generator = np.random.default_rng(2)
    gate = fit_gate(draw(generator, 100, 1.0), draw(generator, 100, -1.0))
    images = draw(generator, 20, 0.0)
    assert [gate.score(row) for row in images] == pytest.approx(score_all(gate, images).tolist(), abs=1e-3)


def test_solution_is_the_minimum_of_the_penalised_loss() -> None:
    """The gradient of the loss vanishes at the solution."""
    generator = np.random.default_rng(3)
    inputs = generator.normal(0, 1, (200, 8))
    targets = (generator.random(200) < 1 / (1 + np.exp(-inputs[:, 0] - 0.5))).astype(float)
    solution = fit_logistic(inputs, targets, np.full(200, 1 / 200), 0.1)
    chances = 1 / (1 + np.exp(-(inputs @ solution[:-1] + solution[-1])))
    gradient = inputs.T @ (chances - targets) / 200 + 0.1 / 8 * solution[:-1]
    assert np.abs(gradient).max() < 2e-3
    assert abs((chances - targets).mean()) < 2e-3


def test_record_states_what_the_gate_rejects() -> None:
    """The record counts the images of each group, and contains the shares that the gate rejects."""
    features = make_features(np.random.default_rng(4))
    gate, record = fit_aerial_gate(features)
    assert record["images"] == {
        "training images": 400,
        "scenes of other sensors": 60,
        "photographs": 600,
        "generated images": 100,
    }
    refused = record["refused"]
    assert refused["clean validation images"] == pytest.approx((score_all(gate, features.clean) < 0).mean(), abs=1e-4)
    assert refused["clean validation images"] <= 0.02
    assert refused["changed validation images"] <= 0.03
    assert refused["photographs of categories left out"] >= 0.91
    assert refused["scenes of other sensors left out"] < 0.2


def test_gate_needs_no_scenes_of_other_sensors() -> None:
    """Without scenes of other sensors, the gate is fitted on the rest, and the record omits their share."""
    features = make_features(np.random.default_rng(5))
    gate, record = fit_aerial_gate(replace(features, other_scenes=features.other_scenes[:0]))
    assert "scenes of other sensors left out" not in record["refused"]
    assert (score_all(gate, features.photographs) < 0).mean() > 0.9
