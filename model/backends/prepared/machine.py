"""Describe what a prepared copy depends on besides the model: the runtime's version and the processor."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from model.backends.engines import find_runtime_version

_CPUINFO = Path("/proc/cpuinfo")
_NAMES = frozenset(
    {"vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU implementer", "CPU part"}
)


def describe_machine(cpuinfo: Path = _CPUINFO) -> Mapping[str, str]:
    """Return the version of ONNX Runtime, the architecture, and the model and the features of the first processor.

    If the system has no `cpuinfo`, Python's short name of the processor replaces its model and features.
    """
    return {**_read_processor(cpuinfo), "onnxruntime": find_runtime_version(), "architecture": platform.machine()}


def _read_processor(cpuinfo: Path) -> dict[str, str]:
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in takewhile(str.strip, file)]  # up to the second processor
    except OSError:
        return {"processor": platform.processor()}
    return {name.strip(): value.strip() for name, _, value in lines if name.strip() in _NAMES}
