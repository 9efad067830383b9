"""The engines that compute a graph, and the packages that contain them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distributions


class Engine(StrEnum):
    """An execution provider of ONNX Runtime, which computes the graph."""

    CPU = "CPUExecutionProvider"
    CUDA = "CUDAExecutionProvider"
    OPENVINO = "OpenVINOExecutionProvider"


PACKAGES = {Engine.CPU: "onnxruntime", Engine.CUDA: "onnxruntime-gpu", Engine.OPENVINO: "onnxruntime-openvino"}
"""Each of them contains the module `onnxruntime`, so install only one."""
SCHEMES = {"onnx": Engine.CPU, "onnx+cuda": Engine.CUDA, "onnx+openvino": Engine.OPENVINO}
"""The engines by URL scheme."""


def find_runtime_version(path: Sequence[str] | None = None) -> str:
    """Return the version of ONNX Runtime without importing it; `path` defaults to sys.path.

    Raises PackageNotFoundError.
    """
    for package in PACKAGES.values():
        for distribution in distributions(name=package, path=list(sys.path if path is None else path)):
            return distribution.version
    raise PackageNotFoundError(PACKAGES[Engine.CPU])
