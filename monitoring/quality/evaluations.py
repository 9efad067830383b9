"""Evaluations of the served model: the results, and which images were predicted correctly.

An evaluation keeps a bit for each image, in the order of the images' digests. So a later evaluation of the same images
can be compared with it image by image. `data_digest` identifies the images and their labels.
"""

from __future__ import annotations

from msgspec import Struct


class EvaluationComparison(Struct, frozen=True):
    """The comparison with an earlier evaluation, whose id is `reference`.

    `lost` images are no longer predicted correctly, `gained` images are now.
    """

    reference: str
    lost: int
    gained: int
    p_value: float


class EvaluationRecord(Struct, frozen=True):
    """One evaluation of `n` images. `at` is in seconds since 1970; `lower` and `upper` bound a 95 % interval.

    `digest` is that of the served file, `correct` the bits in base64. `is_loss` says that the model was significantly
    worse, and that the loss was not accepted.
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
    comparison: EvaluationComparison | None
    is_loss: bool

    @property
    def full_name(self) -> str:
        """Name and version of the model in one word."""
        return f"{self.model}-v{self.version}"
