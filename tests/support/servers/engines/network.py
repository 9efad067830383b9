"""The shipped network as each engine computes it in tests: with ONNX Runtime, in the environment of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

OUTPUTS = {"probabilities": (21,), "pooled": (1280,), "features": (8, 8, 1280)}
SIDES = (256, 256, 3)


class Network:
    """The graph in the file at `path`. It computes in the calling thread."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        graph = Path(path).read_bytes()
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def compute(self, image: Any) -> dict[str, Any]:
        """Map uint8 [n, 256, 256, 3] to the outputs."""
        return dict(
            zip(OUTPUTS, self._session.run(list(OUTPUTS), {self._session.get_inputs()[0].name: image}), strict=True)
        )
