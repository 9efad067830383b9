"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

# Files that hold the limit of the group the process runs in: cgroup v2, then v1.
_LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The container's memory limit in bytes, or the machine's physical memory where none is set.

    v2 spells "no limit" as `max` and v1 as a number beyond any memory.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _LIMIT_FILES:
        try:
            limit = int((root / name).read_text())
        except (OSError, ValueError):
            continue
        return min(limit, physical)
    return physical
