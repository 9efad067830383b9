"""What NVIDIA's management library reports about the GPUs. It is loaded at the first call, and only if installed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec import Struct


class GpuState(Struct, frozen=True):
    """A field is None if the GPU does not report it, such as the utilization of a GPU that MIG divides."""

    utilization: float | None
    used_bytes: int | None
    total_bytes: int | None


def read_gpus() -> Mapping[str, GpuState]:
    """Return the state of each GPU by its number; empty without a GPU, its driver or the package nvidia-ml-py."""
    library = _open_library()
    if library is None:
        return {}
    try:
        return {str(number): _read(library, number) for number in range(library.nvmlDeviceGetCount())}
    except library.NVMLError:  # the driver was unloaded, or the GPU has fallen off the bus
        return {}


@cache
def _open_library() -> Any | None:
    """Return the library, or None if it cannot be used. A forked process must open it after the fork."""
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
