"""Describe what a prepared copy depends on besides the model: the runtime's version and the processor."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from model.backends.engines import find_runtime_version
from model.backends.processor import CPUINFO, MODEL, read_processor

_NAMES = frozenset({"vendor_id", "cpu family", "model", MODEL, "flags", "Features", "CPU implementer", "CPU part"})


def describe_machine(cpuinfo: Path = CPUINFO) -> Mapping[str, str]:
    """Return the version of ONNX Runtime, the architecture, and the model and the features of the first processor.

    If the system has no `cpuinfo`, Python's short name of the processor replaces its model and features.
    """
    facts = {"onnxruntime": find_runtime_version(), "architecture": platform.machine()}
    processor = read_processor(cpuinfo)
    if not processor:
        return {"processor": platform.processor(), **facts}
    return {name: value for name, value in processor.items() if name in _NAMES} | facts
