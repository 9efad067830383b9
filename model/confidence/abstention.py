"""The rules by which a model abstains: the image is not an aerial scene, or the confidence is low."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


class AbstentionReason(StrEnum):
    """The values of `reason` in a response, a ledger entry and a metric."""

    NOT_AERIAL = "not_an_aerial_image"
    LOW_CONFIDENCE = "low_confidence"


class AerialGate(Struct, frozen=True, eq=False):
    """A linear classifier of pooled features: aerial scenes have a `score` of at least 0.

    `weights` is float32 [channels].
    """

    weights: NDArray[np.float32]
    bias: float

    def score(self, pooled: NDArray[np.float32]) -> float:
        """Return the score of one image from its pooled features, float32 [channels]."""
        return float(pooled @ self.weights) + self.bias


class AbstentionRules(Struct, frozen=True):
    """The rules of one model. Without a gate, every image is accepted as an aerial scene."""

    gate: AerialGate | None = None
    min_confidence: float = 0.0

    def score(self, pooled: NDArray[np.float32]) -> float | None:
        """Return the gate's score of one image from its pooled features, float32 [channels].

        Returns None without a gate, and for an empty array: the inference engine then has no pooled features.
        """
        return None if self.gate is None or not pooled.size else self.gate.score(pooled)

    def find_reason(self, gate_score: float | None, confidence: float) -> AbstentionReason | None:
        """Return why the model abstains, or None. `confidence` is the largest calibrated probability."""
        if gate_score is not None and gate_score < 0:
            return AbstentionReason.NOT_AERIAL
        return AbstentionReason.LOW_CONFIDENCE if confidence < self.min_confidence else None
