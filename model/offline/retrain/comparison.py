"""The comparison of a candidate with its start model, on the test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many of the `images` of the test each model recognised, and how many only one of them."""

    images: int
    start_correct: int
    candidate_correct: int
    only_start: int
    only_candidate: int

    @classmethod
    def of(cls, start: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> Comparison:
        """Compare bool [n] arrays that say which images a model recognised."""
        return cls(
            len(start),
            int(start.sum()),
            int(candidate.sum()),
            int((start & ~candidate).sum()),
            int((candidate & ~start).sum()),
        )

    @property
    def is_worse(self) -> bool:
        """Whether the candidate recognises fewer test images than the start model."""
        return self.candidate_correct < self.start_correct
