"""Compare a candidate with its start model on the test images."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


class PairedCounts(Struct, frozen=True):
    """The number of test `images` that each model classified correctly, and that only one of them did."""

    images: int
    start_correct: int
    candidate_correct: int
    only_start: int
    only_candidate: int

    @classmethod
    def of(cls, start: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> PairedCounts:
        """Compare two arrays, bool [n], of the images that each model classified correctly."""
        return cls(
            len(start),
            int(start.sum()),
            int(candidate.sum()),
            int((start & ~candidate).sum()),
            int((candidate & ~start).sum()),
        )

    @property
    def is_worse(self) -> bool:
        """Whether the candidate classifies fewer test images correctly than the start model."""
        return self.candidate_correct < self.start_correct
