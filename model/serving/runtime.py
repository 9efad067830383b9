"""The library versions and the hardware that can change the last bits of a prediction."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from model.backends.engines import find_runtime_version


@cache
def runtime_facts() -> Mapping[str, str]:
    """Return the versions of the libraries that decode and infer, the machine type and the processor."""
    versions = {"numpy": version("numpy"), "onnxruntime": find_runtime_version(), "pillow": version("pillow")}
    return {**versions, "machine": platform.machine(), "processor": _read_processor()}


def _read_processor() -> str:
    """Return the processor's name from /proc/cpuinfo, or "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
