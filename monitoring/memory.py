"""How much memory this process may use, and how much it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """The container's memory limit in bytes, or the machine's physical memory where none is set.

    `own` names the group of this process in each hierarchy; the least limit of it and the groups around it counts.
    v2 spells "no limit" as `max` and v1 as a number beyond any memory.
    """
    limits = [_PAGE_BYTES * os.sysconf("SC_PHYS_PAGES")]
    for path in _limit_files(root, own):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return min(limits)


def resident_bytes(pid: int | str = "self") -> int:
    """What a process has in memory, shared pages included; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def private_bytes() -> int:
    """What this process has in memory and shares with no other; with shared pages where the system does not tell."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return resident_bytes()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _limit_files(root: Path, own: Path) -> Iterator[Path]:
    """Files that may hold a limit: v2's and v1's, of the own group, of each around it, and of the root."""
    yield from (root / "memory.max", root / "memory" / "memory.limit_in_bytes")
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, group in entries:
        if controllers and "memory" not in controllers.split(","):
            continue
        hierarchy, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        # In a container the path may be the host's, of which only the end of the way is to be seen here.
        folder = Path(group.strip().lstrip("/"))
        yield from (hierarchy / part / name for part in (folder, *folder.parents) if ".." not in part.parts)
