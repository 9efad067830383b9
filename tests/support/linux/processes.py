"""Read the children, memory and processor time of running processes from Linux."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Counted from the field behind the process name in /proc/PID/stat: the parent, and utime and stime.
_PARENT, _TIMES = 1, slice(11, 13)


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def parent(pid: int) -> int:
    """The process id of the parent."""
    return int(_read_stat(pid)[_PARENT])


def is_stopped(pid: int) -> bool:
    """Whether a signal such as SIGSTOP has stopped the process, so that it does nothing more."""
    return _read_stat(pid)[0] == "T"


def descendants(pid: int) -> list[int]:
    """Process ids of the children, their children and so on."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def proportional_bytes(pid: int) -> int:
    """Resident memory of one process now, of which memory that N processes share counts as one Nth."""
    found = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return int(found[1]) * 1024


def resident_bytes(pid: int) -> int:
    """Resident memory of one process now."""
    return _status_bytes(pid, "VmRSS")


def peak_resident_bytes(pid: int) -> int:
    """The largest resident memory of one process since it started."""
    return _status_bytes(pid, "VmHWM")


def cpu_seconds(pid: int) -> float:
    """Processor time of one process, in user and kernel mode."""
    return sum(map(int, _read_stat(pid)[_TIMES])) / os.sysconf("SC_CLK_TCK")


def _read_stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _status_bytes(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return int(found[1]) * 1024
