"""The development back end, which loads the Keras file that training saved.

Do not serve with it: Keras' loader has had a series of code-execution vulnerabilities, and its import takes 450 MB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends.base import ModelInfo, Weights
from model.errors import ArtefactError, KerasMissing
from model.explanation.head import read_head
from model.registry.artefact import read_manifest, read_verified

try:
    import keras
except ModuleNotFoundError as error:
    raise KerasMissing("Keras is not installed here. Use onnx://, or run this in the Keras environment.") from error

MODEL_FILE = "model.keras"


class KerasBackend:
    """Serves `model.keras` of an artefact folder. `read_manifest` explains `signed`. Raises ArtefactError."""

    def __init__(self, folder: Path, signed: Mapping[str, str] | None = None) -> None:
        manifest = read_manifest(folder, signed)
        self._model: Any = _load(read_verified(folder, manifest, MODEL_FILE), folder)
        self.head = read_head(folder, manifest, self._model.outputs[1].shape[-1])
        self.weights: Weights | None = None
        digest = manifest.files[MODEL_FILE].sha256
        self.info = ModelInfo(
            manifest.name,
            manifest.version,
            digest,
            "keras",
            manifest.classes,
            replace(manifest.input_spec, dtype="float32"),
            manifest.confidence,
        )

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.predict_with_features(pixels)[0]

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probabilities, features = self.predict_with_features(pixels)
        return probabilities, features.mean(axis=(1, 2))

    def predict_with_features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probabilities, features = self._model.predict_on_batch(pixels.astype(np.float32))
        return probabilities, features

    def release_memory(self) -> None:
        """Do nothing: TensorFlow keeps its memory."""

    def close(self) -> None:
        self._model = None


def _load(model: bytes, folder: Path) -> Any:
    # Keras reads only from a path, so write the verified bytes to a temporary file.
    with tempfile.NamedTemporaryFile(suffix=".keras") as file:
        file.write(model)
        file.flush()
        try:
            return _with_features(keras.saving.load_model(file.name, compile=False))
        except Exception as error:  # the loader raises nearly any class
            raise ArtefactError(f"{folder / MODEL_FILE} cannot be loaded. Export the model again.") from error


def _with_features(model: Any) -> Any:
    """Add the feature maps as the second output. They are the input of the pooling layer, the last with 4 axes."""
    head = next(layer for layer in reversed(model.layers) if len(layer.input.shape) == 4)
    return keras.Model(model.inputs[0], [model.outputs[0], head.input])
