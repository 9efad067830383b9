"""The protocol of back ends, which turn pixels into probabilities, and the description of their model."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.confidence.model import DEFAULT_CONFIDENCE, ConfidenceModel
from model.explanation.head import Head
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec


class ModelInfo(Struct, frozen=True):
    """Identifies a model and its input. `backend` is the URL's scheme.

    `digest` is the SHA-256 of the served file in hex, or "" if an inference engine serves it without reporting a
    digest. `classes` are in the order of the probabilities.
    """

    name: str
    version: str
    digest: str
    backend: str
    classes: tuple[str, ...]
    input_spec: InputSpec = DEFAULT_INPUT
    confidence: ConfidenceModel = DEFAULT_CONFIDENCE

    @property
    def full_name(self) -> str:
        """Name and version in one word, such as "efficientnetb0-v1.1"."""
        return f"{self.name}-v{self.version}"


def are_compatible(models: Sequence[ModelInfo]) -> bool:
    """Whether all models have the same name and version, and all known digests are equal."""
    digests = {model.digest for model in models} - {""}
    return len({model.full_name for model in models}) == 1 and len(digests) <= 1


class Origin(StrEnum):
    """Where the weights in memory come from."""

    PREPARED = "prepared"
    ABSENT = "absent"
    """From the artefact, because it has no prepared copy for this machine yet."""
    REJECTED = "rejected"
    """From the artefact, because its prepared copy was not trusted, or the runtime could not open it."""


class Weights(Struct, frozen=True):
    """Where a back end that uses prepared copies got its weights.

    `reason` says why no prepared copy is used. `shared_bytes` is the size of the pages shared by all processes that
    opened the copy.
    """

    origin: Origin
    reason: str = ""
    shared_bytes: int = 0


class Backend(Protocol):
    """A classifier of decoded images. Its methods block; any thread may call them at any time."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def head(self) -> Head | None:
        """The layers that compute the probabilities from the features, used to explain predictions; None if unknown."""
        ...

    @property
    def weights(self) -> Weights | None:
        """Where the weights come from; None if the back end does not use prepared copies."""
        ...

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 [n, *info.input_spec.shape] to probabilities, float32 [n, classes]; each row adds up to 1."""
        ...

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the probabilities and the pooled features, the mean of each feature map, float32 [n, channels]."""
        ...

    def predict_with_features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the probabilities and the last feature maps, float32 [n, height, width, channels]."""
        ...

    def release_memory(self) -> None:
        """Return memory for intermediate values to the system; the next predictions allocate it again."""
        ...

    def close(self) -> None:
        """Free the model's memory. No prediction may follow. A second call does nothing."""
        ...
