"""What, besides the model and the image, a prediction's last bits depend on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def runtime_facts() -> Mapping[str, str]:
    """Versions of the libraries that decode and infer, and the processor they run on."""
    packages = ("numpy", "onnxruntime", "pillow")
    return {**{name: version(name) for name in packages}, "machine": platform.machine(), "processor": _processor()}


def _processor() -> str:
    """The processor's name as Linux tells it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
