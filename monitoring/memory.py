"""How much memory this process may use, and how much it uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the container's memory limit in bytes, or the machine's physical memory without a limit.

    `own` names the control group of this process in each hierarchy; the lowest limit of it and its ancestors counts.
    Without a limit, v2 reports `max` and v1 a number larger than any memory.
    """
    limits = [_PAGE_BYTES * os.sysconf("SC_PHYS_PAGES")]
    for path in _find_limit_files(root, own):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return min(limits)


def resident_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process, including shared pages; 0 if the system does not report it."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def private_bytes() -> int:
    """Return the memory that this process shares with no other, or its resident memory if that is not reported."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return resident_bytes()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _find_limit_files(root: Path, own: Path) -> Iterator[Path]:
    """Yield the files that may contain a limit: of v2 and v1, of the own group, its ancestors and the root."""
    yield from (root / "memory.max", root / "memory" / "memory.limit_in_bytes")
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, group in entries:
        if controllers and "memory" not in controllers.split(","):
            continue
        hierarchy, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        # In a container the path may be the host's, of which only the last parts exist here.
        folder = Path(group.strip().lstrip("/"))
        yield from (hierarchy / part / name for part in (folder, *folder.parents) if ".." not in part.parts)
