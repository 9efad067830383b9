"""The task of every peer: the gateway's model and preprocessing, with only NumPy, ONNX Runtime and Pillow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


class Classifier:
    """Classifies images with the artefact in the folder that the environment variable MODEL_FOLDER names.

    Its session runs one prediction at a time on one thread. So do the gateway's sessions, except the one for a
    prediction that runs alone, which uses two (ADR 0075).
    """

    def __init__(self) -> None:
        folder = Path(os.environ["MODEL_FOLDER"])
        manifest = json.loads((folder / "manifest.json").read_text())
        self._classes: list[str] = manifest["classes"]
        height, width, _ = manifest["input"]["shape"]
        self._size = width, height
        self._resampling = Image.Resampling[manifest["input"]["resize_filter"].upper()]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]

    def classify(self, image: Image.Image) -> dict[str, Any]:
        """Return the label, its probability and the probabilities of all classes."""
        image = image.resize(self._size, self._resampling).convert("RGB")
        pixels = np.asarray(image, np.uint8 if self._input.type == "tensor(uint8)" else np.float32)
        (probabilities,) = self._session.run(["probabilities"], {self._input.name: pixels[np.newaxis]})[0].tolist()
        by_class = dict(zip(self._classes, probabilities, strict=True))
        label = max(by_class, key=by_class.__getitem__)
        return {"label": label, "confidence": by_class[label], "probabilities": by_class}
