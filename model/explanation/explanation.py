"""Requests for explanations of predictions, and the explanations themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.errors import ExplanationUnavailable, UnknownLabel
from model.explanation.grad_cam import compute_grad_cam, scale_to_one
from model.explanation.head import Head
from model.explanation.overlay import draw_overlay, estimate_overlay_bytes
from model.imaging.input_spec import InputSpec

METHOD = "grad-cam"
# Enough for 2048 feature maps at a sixteenth of the input's resolution; EfficientNetB0 needs 5.
_FEATURE_BYTES_PER_PIXEL = 32


class ExplanationRequest(Struct, frozen=True):
    """`label` is the class to explain, None for the most probable one; `overlay` requests a picture."""

    label: str | None = None
    overlay: bool = False


class Explanation(Struct, frozen=True, eq=False):
    """The areas of the image that support the class `label`.

    `heat` is float32 [rows, columns] in 0..1; `Head` explains `offset`. `overlay` is a PNG of the heat over the model's
    input, None if it was not requested.
    """

    label: str
    heat: NDArray[np.float32]
    offset: tuple[float, float]
    overlay: bytes | None


def check_request(head: Head | None, classes: Sequence[str], request: ExplanationRequest) -> Head:
    """Return the head. Raises ExplanationUnavailable if it is None, and UnknownLabel if the model lacks the class."""
    if head is None:
        raise ExplanationUnavailable
    if request.label is not None and request.label not in classes:
        raise UnknownLabel(f"The model has no class {request.label!r}. Its classes are {', '.join(classes)}.")
    return head


def estimate_explanation_bytes(spec: InputSpec, request: ExplanationRequest) -> int:
    """Estimate the memory in bytes that an explanation takes in addition to the prediction."""
    overlay = estimate_overlay_bytes(spec.width, spec.height) if request.overlay else 0
    return _FEATURE_BYTES_PER_PIXEL * spec.width * spec.height + overlay


def explain(
    head: Head,
    features: NDArray[np.float32],
    pixels: NDArray[np.uint8],
    label: str,
    index: int,
    overlay: bool,
) -> Explanation:
    """Explain the class `label` with the index `index` from feature maps, float32 [rows, columns, channels].

    `pixels` are the model's input, uint8 [height, width, 3].
    """
    heat = scale_to_one(compute_grad_cam(head, features, index))
    return Explanation(label, heat, head.offset, draw_overlay(pixels, heat, head.offset) if overlay else None)
