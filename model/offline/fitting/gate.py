"""Fit the gate that separates aerial images from others, by logistic regression on pooled features (ADR 0027)."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.confidence.abstention import AerialGate
from model.offline.fitting.logistic import fit_logistic
from model.offline.fitting.thresholds import choose_gate_threshold

# The strength of the L2 penalty. A larger one accepts more noise, a smaller one rejects more scenes of new sensors.
_STRENGTH = 3.0
_FOLDS = 6
Features = NDArray[np.float32]  # pooled, [n, channels]


class GateFeatures(Struct, frozen=True, eq=False):
    """Pooled features of the images that a gate is fitted on, and of those that determine its threshold.

    `changed_photographs` are changed versions of `photographs`. `groups`, integer [photographs], numbers their
    categories. `clean` and `changed` are validation images, on which the gate is not fitted.
    """

    scenes: Features
    other_scenes: Features
    photographs: Features
    changed_photographs: Features
    groups: NDArray[np.int64]
    generated: Features
    clean: Features
    changed: Features


def fit_aerial_gate(features: GateFeatures) -> tuple[AerialGate, dict[str, Any]]:
    """Return the gate, with its threshold folded into the bias, and the shares of held-out images that it rejects."""
    photographs = _score_in_folds(features)
    gate, threshold = _fit_with_threshold(features, features.other_scenes, photographs)
    shares = {
        "clean validation images": _measure_refused(gate, features.clean),
        "changed validation images": _measure_refused(gate, features.changed),
        "photographs of categories left out": float((photographs < threshold).mean()),
    }
    if len(features.other_scenes):
        without, _ = _fit_with_threshold(features, features.other_scenes[:0], photographs)
        shares["scenes of other sensors left out"] = _measure_refused(without, features.other_scenes)
    counts = {
        "training images": len(features.scenes),
        "scenes of other sensors": len(features.other_scenes),
        "photographs": len(features.photographs) + len(features.changed_photographs),
        "generated images": len(features.generated),
    }
    return gate, {"images": counts, "refused": {name: round(share, 4) for name, share in shares.items()}}


def fit_gate(aerial: Features, other: Features, strength: float = _STRENGTH) -> AerialGate:
    """Return a gate whose score is the log odds that an image is aerial, if both kinds are equally frequent.

    `aerial` and `other` are pooled features. They are standardised, and this scaling is folded into the weights, so
    that computing a score takes one dot product.
    """
    features = np.concatenate([aerial, other])
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    # A channel that is nearly constant would get a large weight.
    deviation = np.maximum(deviation, max(0.05 * float(deviation.mean()), 1e-6))
    targets = np.concatenate([np.ones(len(aerial)), np.zeros(len(other))])
    shares = np.concatenate([np.full(len(aerial), 0.5 / len(aerial)), np.full(len(other), 0.5 / len(other))])
    solution = fit_logistic((features - mean) / deviation, targets, shares, strength)
    weights = solution[:-1] / deviation
    return AerialGate(weights.astype(np.float32), float(solution[-1] - weights @ mean))


def score_all(gate: AerialGate, pooled: Features) -> NDArray[np.float64]:
    """Return the scores of n images from their pooled features, [n, channels]."""
    return pooled.astype(np.float64) @ gate.weights.astype(np.float64) + gate.bias


def _fit_with_threshold(
    features: GateFeatures, other_scenes: Features, photographs: NDArray[np.float64]
) -> tuple[AerialGate, float]:
    """Return a gate and its threshold, which is folded into the gate's bias.

    `photographs` are scores of photographs, each by a gate that was fitted without the photograph's category.
    """
    aerial = np.concatenate([features.scenes, other_scenes])
    other = np.concatenate([features.photographs, features.changed_photographs, features.generated])
    gate = fit_gate(aerial, other)
    threshold = choose_gate_threshold(score_all(gate, features.clean), score_all(gate, features.changed), photographs)
    return AerialGate(gate.weights, gate.bias - threshold), threshold


def _score_in_folds(features: GateFeatures) -> NDArray[np.float64]:
    """Score each photograph with a gate that was fitted without its category."""
    scores = np.empty(len(features.photographs))
    aerial = np.concatenate([features.scenes, features.other_scenes])
    for fold in range(_FOLDS):
        left_out = features.groups % _FOLDS == fold
        if left_out.any():
            kept = [features.photographs[~left_out], features.changed_photographs[~left_out], features.generated]
            gate = fit_gate(aerial, np.concatenate(kept))
            scores[left_out] = score_all(gate, features.photographs[left_out])
    return scores


def _measure_refused(gate: AerialGate, pooled: Features) -> float:
    return float((score_all(gate, pooled) < 0).mean())
