"""Compare two evaluations of the same images."""

from __future__ import annotations

from math import comb

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

SIGNIFICANCE = 0.05


class PairedComparison(Struct, frozen=True):
    """The changes between two evaluations: the number of images `lost` (no longer correct) and `gained`.

    `p_value` is that of the exact two-sided McNemar test ("Note on the sampling error of the difference between
    correlated proportions or percentages", 1947): the binomial test of the changed images against 1/2.
    """

    lost: int
    gained: int
    p_value: float

    @property
    def is_loss(self) -> bool:
        """Whether the later evaluation is significantly worse."""
        return self.lost > self.gained and self.p_value < SIGNIFICANCE


def compare_pairs(earlier: NDArray[np.bool_], later: NDArray[np.bool_]) -> PairedComparison:
    """Compare two evaluations: bool [n], whether each of the same n images was classified correctly."""
    lost, gained = int((earlier & ~later).sum()), int((~earlier & later).sum())
    changed = lost + gained
    tail = sum(comb(changed, k) for k in range(min(lost, gained) + 1))
    return PairedComparison(lost, gained, min(1.0, 2 * tail / 2**changed))
