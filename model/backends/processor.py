"""Read what Linux says about the processor."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MODEL = "model name"


def read_processor(cpuinfo: Path = CPUINFO) -> Mapping[str, str]:
    """Return the fields of the first processor, such as MODEL; none if the system has no `cpuinfo`."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in takewhile(str.strip, file)]  # up to the second processor
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in lines}
