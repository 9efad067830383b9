"""The result of classifying one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.backends.base import ModelInfo


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The uploaded image: SHA-256 in hex, format (JPEG, PNG, WEBP, TIFF), size in pixels and in bytes."""

    sha256: str
    format: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """`probabilities` is float32 [classes]; `timing` holds the seconds of the stages queue, decode and infer."""

    probabilities: NDArray[np.float32]
    index: int
    label: str
    confidence: float
    model: ModelInfo
    image: ImageFacts
    timing: Mapping[str, float]

    def top(self, k: int) -> list[tuple[str, float]]:
        """Return the `k` most likely labels with their probabilities, in descending order."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.model.classes[index], float(self.probabilities[index])) for index in order]
