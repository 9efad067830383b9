"""The confidence settings in a model's manifest."""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from model.confidence.abstention import AbstentionRules
from model.confidence.calibration import calibrate
from model.confidence.prediction_sets import ConformalScores


class ConfidenceModel(Struct, frozen=True):
    """Calibration, abstention and prediction sets. By default, the model's own probabilities are used unchanged."""

    temperature: float = 1.0
    abstention: AbstentionRules = field(default_factory=AbstentionRules)
    sets: ConformalScores | None = None

    def check(self, probabilities: NDArray[np.float32], pooled: NDArray[np.float32]) -> None:
        """Check that a model's outputs for one image, float32 [classes] and [channels], are usable.

        Raises ArithmeticError for numbers that are not finite, ValueError for pooled features that do not fit the gate.
        """
        with np.errstate(all="ignore"):
            score, calibrated = self.abstention.score(pooled), calibrate(probabilities, self.temperature)
        if not np.isfinite(calibrated).all() or not math.isfinite(score or 0.0):
            raise ArithmeticError("the probabilities or the gate's score are not finite")


DEFAULT_CONFIDENCE = ConfidenceModel()
