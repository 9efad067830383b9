"""95 % confidence intervals of shares."""

from __future__ import annotations

import math

from msgspec import Struct

Z = 1.959964  # 95 % of a normal distribution lie within this many standard deviations


class Interval(Struct, frozen=True):
    """A share in 0..1 and the bounds of its 95 % confidence interval."""

    value: float
    lower: float
    upper: float


def find_wilson_interval(share: float, n: int) -> Interval:
    """Return Wilson's score interval for a share of `n` independent observations ("Probable Inference", 1927)."""
    weight = Z**2 / n
    centre = (share + weight / 2) / (1 + weight)
    spread = share * (1 - share) / n + weight / (4 * n)
    half = Z * math.sqrt(spread) / (1 + weight)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
