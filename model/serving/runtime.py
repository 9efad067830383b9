"""The library versions and the hardware that can change the last bits of a prediction."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from model.backends.engines import find_runtime_version
from model.backends.processor import MODEL, read_processor


@cache
def runtime_facts() -> Mapping[str, str]:
    """Return the versions of the libraries that decode and infer, the machine type and the processor, if known."""
    versions = {"numpy": version("numpy"), "onnxruntime": find_runtime_version(), "pillow": version("pillow")}
    return {**versions, "machine": platform.machine(), "processor": read_processor().get(MODEL, "")}
