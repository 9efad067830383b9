"""A fake of NVIDIA's management library with two GPUs, for processes with this folder in PYTHONPATH.

The second GPU is divided (MIG), so that it reports no utilization. The names are those of the package nvidia-ml-py.
"""

from __future__ import annotations

from dataclasses import dataclass

_GIBIBYTE = 1 << 30


class NVMLError(Exception): ...


class NVMLError_NotSupported(NVMLError): ...  # noqa: N801  (the package's name)


@dataclass(frozen=True)
class Utilization:
    gpu: int  # percent


@dataclass(frozen=True)
class Memory:
    used: int
    total: int


def nvmlInit() -> None:  # noqa: N802
    """Nothing has to be loaded."""


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return 2


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    return index


def nvmlDeviceGetUtilizationRates(handle: int) -> Utilization:  # noqa: N802
    if handle == 1:
        raise NVMLError_NotSupported
    return Utilization(gpu=40)


def nvmlDeviceGetMemoryInfo(handle: int) -> Memory:  # noqa: N802
    return Memory(used=(handle + 1) * _GIBIBYTE, total=16 * _GIBIBYTE)
