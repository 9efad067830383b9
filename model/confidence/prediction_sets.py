"""Split conformal prediction sets (Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers", 2019)."""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


class ConformalScores(Struct, frozen=True, eq=False):
    """`scores` is float32 [n], ascending: 1 minus the calibrated probability of the true class of held-out images."""

    scores: NDArray[np.float32]

    def find_labels(
        self, probabilities: NDArray[np.float32], calibrated: NDArray[np.float32], coverage: float
    ) -> list[int]:
        """Return the class indices of the set, most probable first; never empty.

        `probabilities` are the model's output, `calibrated` the calibrated probabilities, both float32 [classes], and
        `coverage` is in (0, 1). Over exchangeable images, the set contains the true class with at least that
        probability.
        """
        rank = math.ceil(round(coverage * (len(self.scores) + 1), 6))  # 0.07 * 100 is 7.000000000000001
        # Without a score of that rank, only the set of all labels has the coverage.
        limit = float(self.scores[rank - 1]) if rank <= len(self.scores) else 1.0
        # Calibration keeps this order, but it can round different probabilities to the same value.
        order = np.argsort(-probabilities, kind="stable")
        return [int(index) for index in order if 1 - calibrated[index] <= limit] or [int(order[0])]
