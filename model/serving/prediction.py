"""The result of classifying one image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from model.backends.base import Backend, ModelInfo
from model.backends.call import EngineFacts
from model.confidence.abstention import AbstentionReason
from model.confidence.calibration import calibrate
from model.errors import SetsUnavailable
from model.explanation.explanation import Explanation, ExplanationRequest, check_request, explain
from model.imaging.decode import DecodedImage
from model.imaging.ground_resolution import describe_mismatch
from model.imaging.statistics import measure_pixels
from model.serving.sources import ImageSource, decode_source, get_bytes


class ImageFacts(Struct, frozen=True):
    """The uploaded image: its SHA-256 in hex, its size in `bytes`, and the properties that `DecodedImage` describes.

    `brightness` and `sharpness` are measured on the decoded pixels (see ImageStatistics).
    """

    sha256: str
    format: str
    width: int
    height: int
    bytes: int
    bit_depth: int
    scaling: str
    ground_resolution_m: float | None
    brightness: float
    sharpness: float


class ImageWarning(Struct, frozen=True):
    """A property of the image that makes the prediction less reliable. It does not change the prediction.

    `code` is stable.
    """

    code: str
    detail: str


class FollowUp(Protocol):
    """Work on the image that runs after the response."""

    def complete_later(self, prediction_id: str) -> None:
        """Start the work. `prediction_id` identifies the recorded prediction."""
        ...


class Prediction(Struct, frozen=True, eq=False):
    """A model's prediction for one image. `index` and `label` identify the most probable class.

    `probabilities` are the model's output, and `calibrated` the calibrated probabilities, both float32 [classes].
    `confidence` is the calibrated probability of the label. `gate_score` is None if the model has no gate. `reason`
    says why the model abstains, None if it does not.
    `timing` holds the seconds of the stages queue, decode, infer and, if there is an explanation, explain.
    Call `follow_up` after recording the prediction. `engine` is set if an inference engine, or the local fallback
    model, computed the prediction.
    """

    probabilities: NDArray[np.float32]
    calibrated: NDArray[np.float32]
    index: int
    label: str
    confidence: float
    gate_score: float | None
    reason: AbstentionReason | None
    model: ModelInfo
    image: ImageFacts
    timing: Mapping[str, float]
    explanation: Explanation | None = None
    follow_up: FollowUp | None = None
    engine: EngineFacts | None = None

    @property
    def warnings(self) -> list[ImageWarning]:
        image = self.image
        mismatch = describe_mismatch(image.ground_resolution_m, image.width, image.height, self.model.input_spec)
        return [] if mismatch is None else [ImageWarning("ground_resolution", mismatch)]

    def top(self, k: int) -> list[tuple[str, float]]:
        """Return the `k` most likely labels with their calibrated probabilities, in descending order."""
        # Calibration keeps this order, but it can round different probabilities to the same value.
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.model.classes[index], float(self.calibrated[index])) for index in order]

    def find_set(self, coverage: float) -> list[tuple[str, float]]:
        """Return the labels of the prediction set with their calibrated probabilities, most probable first.

        The set contains the true class with a probability of at least `coverage`, in (0, 1). Raises SetsUnavailable.
        """
        sets = self.model.confidence.sets
        if sets is None:
            raise SetsUnavailable
        chosen = sets.find_labels(self.probabilities, self.calibrated, coverage)
        return [(self.model.classes[index], float(self.calibrated[index])) for index in chosen]


class ModelOutputs(NamedTuple):
    """A model's outputs for one image: float32 [classes], [channels], and [rows, columns, channels]."""

    probabilities: NDArray[np.float32]
    pooled: NDArray[np.float32]
    features: NDArray[np.float32] | None = None


def predict_image(backend: Backend, data: ImageSource, explanation: ExplanationRequest | None = None) -> Prediction:
    """Classify one image in this thread, without timing.

    Raises a subclass of ImageRejected, ExplanationUnavailable or UnknownLabel.
    """
    decoded = decode_source(data, backend.info.input_spec)
    outputs = run_model(backend, decoded.pixels, with_features=explanation is not None)
    prediction = interpret_outputs(outputs, backend.info, describe_image(data, decoded), {})
    if explanation is None:
        return prediction
    return replace(prediction, explanation=explain_outputs(backend, outputs, decoded.pixels, explanation))


def run_model(backend: Backend, pixels: NDArray[np.uint8], *, with_features: bool) -> ModelOutputs:
    """Run the model on the pixels of one image, uint8 [height, width, 3]. Return feature maps only if requested."""
    batch = pixels[np.newaxis]
    if not with_features:
        probabilities, pooled = backend.predict_pooled(batch)
        return ModelOutputs(probabilities[0], pooled[0])
    probabilities, features = backend.predict_with_features(batch)
    return ModelOutputs(probabilities[0], features[0].mean(axis=(0, 1)), features[0])


def explain_outputs(
    backend: Backend, outputs: ModelOutputs, pixels: NDArray[np.uint8], request: ExplanationRequest
) -> Explanation:
    """Explain the outputs, which must include features, for `pixels`. Raises ExplanationUnavailable, UnknownLabel."""
    assert outputs.features is not None  # noqa: S101  (the callers requested them)
    classes = backend.info.classes
    head = check_request(backend.head, classes, request)
    index = int(outputs.probabilities.argmax()) if request.label is None else classes.index(request.label)
    return explain(head, outputs.features, pixels, classes[index], index, request.overlay)


def interpret_outputs(
    outputs: ModelOutputs,
    model: ModelInfo,
    image: ImageFacts,
    timing: Mapping[str, float],
    follow_up: FollowUp | None = None,
) -> Prediction:
    """Make the prediction for one image from the outputs of the model, without an explanation."""
    probabilities = outputs.probabilities
    index = int(probabilities.argmax())
    calibrated = calibrate(probabilities, model.confidence.temperature)
    confidence = float(calibrated[index])
    rules = model.confidence.abstention
    gate_score = rules.score(outputs.pooled)
    return Prediction(
        probabilities,
        calibrated,
        index,
        model.classes[index],
        confidence,
        gate_score,
        rules.find_reason(gate_score, confidence),
        model,
        image,
        timing,
        follow_up=follow_up,
    )


def describe_image(data: ImageSource, decoded: DecodedImage) -> ImageFacts:
    """Return the facts of the image `data` and its decoded pixels."""
    statistics = measure_pixels(decoded.pixels)
    return ImageFacts(
        sha256=hashlib.sha256(get_bytes(data)).hexdigest(),
        format=decoded.format,
        width=decoded.width,
        height=decoded.height,
        bytes=len(data),
        bit_depth=decoded.bit_depth,
        scaling=decoded.scaling,
        ground_resolution_m=decoded.ground_resolution_m,
        brightness=statistics.brightness,
        sharpness=statistics.sharpness,
    )
