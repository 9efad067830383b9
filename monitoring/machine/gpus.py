"""What NVIDIA's management library reports about the GPUs. It is loaded at the first call, and only if installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuState:
    """None for what the GPU does not report, such as the utilization of one that is divided (MIG)."""

    utilization: float | None
    used_bytes: int | None
    total_bytes: int | None


def read_gpus() -> Mapping[str, GpuState]:
    """Return the state of each GPU by its number; none without a GPU, its driver or the package nvidia-ml-py."""
    library = _open_library()
    if library is None:
        return {}
    try:
        return {str(number): _read(library, number) for number in range(library.nvmlDeviceGetCount())}
    except library.NVMLError:  # the driver was unloaded, or the GPU has fallen off the bus
        return {}


@cache
def _open_library() -> Any | None:
    """Return the library; None where it cannot be used. In forked processes it must be opened after the fork."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _read(library: Any, number: int) -> GpuState:
    handle = library.nvmlDeviceGetHandleByIndex(number)
    rates = _query(library, library.nvmlDeviceGetUtilizationRates, handle)
    memory = _query(library, library.nvmlDeviceGetMemoryInfo, handle)
    return GpuState(
        utilization=None if rates is None else rates.gpu / 100,
        used_bytes=None if memory is None else memory.used,
        total_bytes=None if memory is None else memory.total,
    )


def _query(library: Any, read: Any, handle: Any) -> Any | None:
    try:
        return read(handle)
    except library.NVMLError_NotSupported:
        return None
