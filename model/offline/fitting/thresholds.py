"""Choose the thresholds of the two abstention rules on held-out images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Shares of the images that the gate rejects.
_WANTED_PHOTOGRAPHS, _MIN_PHOTOGRAPHS = 0.93, 0.91
_MAX_CLEAN, _MAX_CHANGED = 0.02, 0.03
WANTED_ACCURACY, MAX_UNSURE = 0.98, 0.05

Scores = NDArray[np.floating]  # [n]


def choose_gate_threshold(clean: Scores, changed: Scores, photographs: Scores) -> float:
    """Return the threshold: the gate accepts images whose score is at least this.

    The threshold rejects 93 % of `photographs`, and no more, so that images of other sensors pass. It is lowered if it
    would reject more than 2 % of the `clean` or 3 % of the `changed` aerial images, but always rejects at least 91 % of
    `photographs`.
    """
    wanted = min(
        float(np.quantile(photographs, _WANTED_PHOTOGRAPHS)),
        float(np.quantile(clean, _MAX_CLEAN)),
        float(np.quantile(changed, _MAX_CHANGED)),
    )
    return max(wanted, float(np.quantile(photographs, _MIN_PHOTOGRAPHS)))


def choose_min_confidence(clean: Scores, changed: Scores, changed_correct: NDArray[np.bool_]) -> float:
    """Return the confidence below which the model abstains.

    It is the smallest confidence at which 98 % of the accepted `changed` images are correct, limited so that at most
    5 % of the `clean` images are rejected. The confidences are calibrated.
    """
    order = np.argsort(changed)
    ascending, correct = changed[order], changed_correct[order]
    accepted = np.arange(len(order), 0, -1)
    accuracy = np.cumsum(correct[::-1])[::-1] / accepted
    is_first = np.diff(ascending, prepend=-np.inf) > 0  # images of equal confidence are accepted together
    enough = np.flatnonzero(is_first & (accuracy >= WANTED_ACCURACY))
    if len(enough) and enough[0] == 0:
        return 0.0  # all of them are accepted
    limit = float(np.quantile(clean, MAX_UNSURE, method="lower"))
    return min(limit, float(ascending[enough[0]])) if len(enough) else limit
