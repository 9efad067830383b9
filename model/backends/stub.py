"""A back end without a model: fixed weights over average colours, for tests and for trying out the gateway."""

from __future__ import annotations

import hashlib
import threading
import time
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from model.backends.base import ModelInfo, Weights
from model.classes import UC_MERCED_CLASSES
from model.confidence.abstention import AbstentionRules
from model.confidence.model import DEFAULT_CONFIDENCE, ConfidenceModel
from model.errors import BackendURLError
from model.explanation.head import Head
from model.imaging.input_spec import InputSpec

_GRID = 8
_INPUT = InputSpec(ground_resolution_m=0.3, dtype="uint8")
_WHITE = 255


class StubBackend:
    """Predicts deterministically from the pixels; each call sleeps for `latency_s`.

    With `hangs_on_white`, the prediction of a white image never ends, which shows how the gateway handles a stuck job.
    The sides of `input_spec` must be multiples of 8. The pooled features, which the gate in `confidence` takes, are
    the image's mean red, green and blue, in 0..1.
    """

    def __init__(
        self,
        latency_s: float = 0.0,
        *,
        hangs_on_white: bool = False,
        classes: tuple[str, ...] = UC_MERCED_CLASSES,
        input_spec: InputSpec = _INPUT,
        confidence: ConfidenceModel = DEFAULT_CONFIDENCE,
    ) -> None:
        weights = np.random.default_rng(0).normal(0.0, 0.5, (_GRID * _GRID * 3, len(classes)))
        self._weights: NDArray[np.float32] = weights.astype(np.float32)
        self.latency_s = latency_s
        self._hangs_on_white = hangs_on_white
        digest = hashlib.sha256(self._weights.tobytes()).hexdigest()
        self.info = ModelInfo("stub", "1.0", digest, "stub", classes, input_spec, confidence)
        # Its probabilities are not computed from pooled features.
        self.head: Head | None = None
        self.weights: Weights | None = None

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.predict_with_features(pixels)[0]

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probabilities, features = self.predict_with_features(pixels)
        return probabilities, features.mean(axis=(1, 2))

    def predict_with_features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The features are the mean colours of an 8 by 8 grid, in 0..1."""
        n, height, width, channels = pixels.shape
        blocks = pixels.reshape(n, _GRID, height // _GRID, _GRID, width // _GRID, channels)
        features = blocks.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
        if self.latency_s:
            time.sleep(self.latency_s)
        if self._hangs_on_white and pixels.min() == _WHITE:
            threading.Event().wait()
        return _softmax(features.reshape(n, -1) @ self._weights), features

    def release_memory(self) -> None:
        """Do nothing: the stub holds no memory."""

    def close(self) -> None:
        """Do nothing: the stub holds no resources."""


def open_stub(rest: str) -> StubBackend:
    """Open the stub. `rest` follows `stub://`: nothing, or a query of `latency_ms=N`, `hang=white`, `min_confidence=N`.

    Raises BackendURLError.
    """
    try:
        query = parse_qs(rest.removeprefix("?"), strict_parsing=True) if rest else {}
        (latency_ms,) = query.pop("latency_ms", ["0"])
        (hang,) = query.pop("hang", [""])
        (min_confidence,) = query.pop("min_confidence", ["0"])
        latency_s, rules = float(latency_ms) / 1000, AbstentionRules(min_confidence=float(min_confidence))
        if query or hang not in ("", "white") or not 0 <= latency_s <= 60 or not 0 <= rules.min_confidence <= 1:
            raise ValueError(rest)
    except ValueError as error:
        raise BackendURLError(
            f"'stub://{rest}' is not valid. Use stub://, stub://?latency_ms=20, stub://?hang=white or "
            "stub://?min_confidence=0.5."
        ) from error
    return StubBackend(latency_s, hangs_on_white=bool(hang), confidence=ConfidenceModel(abstention=rules))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
