"""Estimate accuracy without labels from calibrated confidence: confidence-based performance estimation (ADR 0040).

If the confidence is calibrated, a prediction with confidence p is correct with probability p. Of n independent
predictions, the number of correct ones then has a Poisson binomial distribution with the mean sum(p) and the variance
sum(p (1 - p)). The estimate is the mean divided by n. Its interval is that of a normal distribution with this variance:
it contains the actual accuracy of these predictions with a probability of about 95 %.
"""

from __future__ import annotations

import math

from msgspec import Struct

from model.quality.intervals import Interval, Z


class ConfidenceSums(Struct, frozen=True):
    """The additive sums that the estimate needs: of p and of p (1 - p), over `n` predictions."""

    n: int = 0
    confidence: float = 0.0
    variance: float = 0.0

    def __add__(self, other: ConfidenceSums) -> ConfidenceSums:
        return ConfidenceSums(self.n + other.n, self.confidence + other.confidence, self.variance + other.variance)


def estimate_accuracy(sums: ConfidenceSums) -> Interval | None:
    """Return the estimated accuracy of the predictions with its interval; None without predictions."""
    if sums.n == 0:
        return None
    value = sums.confidence / sums.n
    half = Z * math.sqrt(max(0.0, sums.variance)) / sums.n
    return Interval(value, max(0.0, value - half), min(1.0, value + half))
