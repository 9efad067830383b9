"""What computes probabilities, chosen by a URL; each back end is imported only when it is used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.errors import BackendURLError
from model.imaging.decode import INPUT_SIZE

SCHEMES = ("onnx", "keras", "stub")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers. `digest` is the SHA-256 in hex of the file served, `backend` the URL's scheme."""

    name: str
    version: str
    digest: str
    backend: str
    classes: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """Name and version in one word, such as "efficientnetb0-v1.0"."""
        return f"{self.name}-v{self.version}"


class Backend(Protocol):
    """A classifier of decoded images. Its methods block, and any thread may call them at any time."""

    @property
    def info(self) -> ModelInfo: ...

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 [n, 256, 256, 3] to probabilities, float32 [n, classes]; each row adds up to 1."""
        ...

    def predict_with_features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `predict`, and the last feature maps, float32 [n, height, width, channels]."""
        ...

    def close(self) -> None:
        """Give the model's memory back; nothing may be predicted afterwards. Closing twice is no error."""
        ...


def open_backend(url: str, at_once: int = 1) -> Backend:
    """Load the model that `url` names: `onnx://FOLDER`, `keras://FOLDER` or `stub://?latency_ms=20`.

    FOLDER is an artefact folder, absolute or relative to the working directory. So many threads can predict `at_once`
    without waiting for each other.
    Raises BackendURLError, ArtefactError, KerasMissing.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "stub":
        from model.backends.stub import open_stub

        return open_stub(rest)
    if scheme not in SCHEMES or not rest:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise BackendURLError(f"{url!r} names no back end. Begin with one of {known} and, but for stub, a folder.")
    if scheme == "keras":
        from model.backends.keras import KerasBackend

        return KerasBackend(Path(rest))
    from model.backends.onnx import OnnxBackend

    return OnnxBackend(Path(rest), at_once)


def open_warm(url: str, at_once: int = 1) -> Backend:
    """As `open_backend`. The first inferences allocate: better before the first request than in it."""
    backend = open_backend(url, at_once)
    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(backend.predict, [np.zeros((1, *INPUT_SIZE, 3), np.uint8)] * at_once))
    return backend
