"""Evaluations of the served model: the results, and which images were predicted correctly.

An evaluation keeps a bit for each image, in the order of the images' digests. A later one of the same images, which
`data_digest` identifies with their labels, can so be compared with it image by image.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison with the earlier evaluation `reference`, an id: how many images are no longer, or now, correct."""

    reference: str
    lost: int
    gained: int
    p_value: float


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """One evaluation of `n` images. `at` is in seconds since 1970; `lower` and `upper` bound a 95 % interval.

    `digest` is that of the served file, `correct` the bits in base64. `is_loss` says that the model was significantly
    worse, and that nobody has accepted that.
    """

    id: str
    at: int
    model: str
    version: str
    digest: str
    data_digest: str
    n: int
    accuracy: float
    lower: float
    upper: float
    macro_f1: float
    ece: float
    correct: str
    comparison: Comparison | None
    is_loss: bool

    @property
    def full_name(self) -> str:
        """Name and version of the model in one word."""
        return f"{self.model}-v{self.version}"
