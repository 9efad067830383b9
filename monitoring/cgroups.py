"""The memory and the processors that this process may use: those of the machine, or less if its control group says so.

Both versions of control groups are read. The lowest limit of the own group and its ancestors counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def memory_limit_bytes(root: Path = _ROOT, own: Path = _OWN) -> int:
    """Return the memory limit in bytes, or the machine's physical memory without a limit.

    `own` names the control group of this process in each hierarchy below `root`. Without a limit, v2 reports `max` and
    v1 a number larger than any memory.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _find_folders("memory", root, own):
        limits += _read_numbers(folder / "memory.max")[:1] + _read_numbers(folder / "memory.limit_in_bytes")[:1]
    return min(limits)


def count_processors(root: Path = _ROOT, own: Path = _OWN) -> int:
    """Return how many processors this process can keep busy: the lesser of its CPU affinity and its quota, at least 1.

    A part of a processor counts as a whole one, because a thread less would leave it unused. The kernel then stops the
    threads for the rest of each period of usually 100 ms.
    """
    affinity = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _find_folders("cpu", root, own) for quota in _read_quotas(folder)]
    return max(1, min([affinity, *map(math.ceil, quotas)]))


def _read_quotas(folder: Path) -> Iterator[float]:
    """Yield the group's quota in processors; none if there is no limit, which v2 reports as `max` and v1 as -1."""
    v2 = _read_numbers(folder / "cpu.max")
    v1 = _read_numbers(folder / "cpu.cfs_quota_us") + _read_numbers(folder / "cpu.cfs_period_us")
    for numbers in (v2, v1):
        if len(numbers) == 2 and min(numbers) > 0:
            yield numbers[0] / numbers[1]


def _read_numbers(path: Path) -> list[int]:
    """Return the numbers in a file; none if it cannot be read, or if it contains anything else."""
    try:
        return [int(number) for number in path.read_text().split()]
    except (OSError, ValueError):
        return []


def _find_folders(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders, in v2 and v1, of the own group, its ancestors and the root, as far as `own` can be read."""
    yield from (root, root / controller)
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, group in entries:
        if controllers and controller not in controllers.split(","):
            continue
        hierarchy = root / controller if controllers else root
        parts = [part for part in group.strip().split("/") if part not in ("", "..")]
        # In a container the path may be the host's, of which only the last parts exist here.
        while parts and not hierarchy.joinpath(*parts).exists():
            del parts[0]
        yield from (hierarchy.joinpath(*parts[:count]) for count in range(1, len(parts) + 1))
