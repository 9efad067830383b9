"""How much memory a process uses; monitoring/machine/cgroups.py reads how much it may use."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process, including shared pages; 0 if the system does not report it."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def private_bytes() -> int:
    """Return the memory that this process does not share, or its resident memory if that is not reported."""
    return _sum_rollup("Private_") or resident_bytes()


def proportional_bytes(pid: int | str = "self") -> int:
    """Return the memory of a process with its share of shared pages, or its resident memory if not reported.

    The sum over all processes counts each page once.
    """
    return _sum_rollup("Pss:", pid) or resident_bytes(pid)


def _sum_rollup(prefix: str, pid: int | str = "self") -> int:
    """Return the bytes of the fields whose names begin with `prefix`; 0 if the system does not report them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(prefix))
