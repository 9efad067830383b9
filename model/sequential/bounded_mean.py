"""E-values and confidence bounds for the mean of bounded observations, from counts alone (ADR 0034).

The test bets against the hypothesis "the mean is at most `bound`" on each observation x: a stake λ multiplies the
wealth by 1 + λ (x - bound). Under the hypothesis, the wealth is not expected to grow, even if observations depend on
earlier ones, as long as each has a conditional mean of at most `bound`. The e-value is the average wealth of several
stakes that are fixed in advance. By Ville's inequality, the probability that it ever reaches 1 / level is at most
`level`, so the test may be repeated after every observation and stopped at any time.

The wealth depends only on how often each value occurred, so the counts of several processes can be added. For the
values 1, 0, -1 and the bound 0, this is McNemar's test on discordant pairs as an e-process.

Sources: Ville, "Étude critique de la notion de collectif", 1939; Waudby-Smith and Ramdas, "Estimating means of bounded
random variables by betting", JRSS B 86(1), 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

# Stakes as shares of the largest stake that cannot make the wealth negative. Small stakes detect small differences.
STAKE_SHARES = tuple(0.9 * (2 / 3) ** power for power in range(12))
_BISECTIONS = 30


class BoundedMean(Struct, frozen=True):
    """Tests of the mean of observations in [`lowest`, `highest`].

    `counts` says how often each value occurred. Methods raise ValueError for a value outside the range, or for a
    `bound` that is not strictly inside it.
    """

    lowest: float
    highest: float

    def compute_log_e_above(self, counts: Mapping[float, int], bound: float) -> float:
        """Return the natural logarithm of the e-value that the mean is above `bound`."""
        if not self.lowest < bound < self.highest:
            raise ValueError(f"the bound {bound} is not between {self.lowest} and {self.highest}")
        if any(not self.lowest <= value <= self.highest for value in counts):
            raise ValueError(f"an observation is not between {self.lowest} and {self.highest}")
        scale = 1 / (bound - self.lowest)
        wealth = [
            math.fsum(n * math.log1p(share * (value - bound) * scale) for value, n in counts.items())
            for share in STAKE_SHARES
        ]
        largest = max(wealth)
        return largest + math.log(math.fsum(math.exp(log - largest) for log in wealth) / len(STAKE_SHARES))

    def compute_log_e_below(self, counts: Mapping[float, int], bound: float) -> float:
        """Return the natural logarithm of the e-value that the mean is below `bound`."""
        return self._mirror().compute_log_e_above(_mirror_counts(counts), -bound)

    def find_lower_bound(self, counts: Mapping[float, int], level: float) -> float:
        """Return the largest bound that the mean is shown, at `level`, to exceed.

        The probability that the bound ever exceeds the mean is at most `level`.
        """
        threshold = -math.log(level)
        below, above = self.lowest, self.highest
        for _ in range(_BISECTIONS):  # a higher bound always has a lower e-value
            middle = (below + above) / 2
            if self.compute_log_e_above(counts, middle) >= threshold:
                below = middle
            else:
                above = middle
        return below

    def find_upper_bound(self, counts: Mapping[float, int], level: float) -> float:
        """Return the smallest bound that the mean is shown, at `level`, to be below."""
        return -self._mirror().find_lower_bound(_mirror_counts(counts), level)

    def _mirror(self) -> BoundedMean:
        return BoundedMean(-self.highest, -self.lowest)


def _mirror_counts(counts: Mapping[float, int]) -> dict[float, int]:
    return {-value: n for value, n in counts.items()}
