"""The memory and the processors that this process may use, and what its control group reports about their use.

Supports both versions of control groups. The lowest limit of the process's group and its ancestors applies; without
one, the machine is the limit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def memory_limit_bytes(root: Path = _ROOT, own: Path = _OWN) -> int:
    """Return the memory limit in bytes, or the machine's physical memory without a limit.

    `own` names the control group of this process in each hierarchy below `root`. Without a limit, v2 reports `max` and
    v1 a number larger than any memory.
    """
    return min(map(_read_memory_limit, _find_folders("memory", root, own)))


def count_processors(root: Path = _ROOT, own: Path = _OWN) -> int:
    """Return how many processors this process can keep busy: the lesser of its CPU affinity and its quota, at least 1.

    A fraction of a processor is rounded up, because one thread fewer would leave it unused. When the threads have used
    up the quota, the kernel stops them for the rest of the period (usually 100 ms).
    """
    affinity = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _find_folders("cpu", root, own) for quota in _read_quotas(folder)]
    return max(1, min([affinity, *map(math.ceil, quotas)]))


def read_working_set(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Return the bytes in use in the group whose limit applies, without file pages that the kernel can drop at once.

    Returns None without a group.
    """
    for folder in _sort_by_memory_limit(root, own):
        used = _read_numbers(folder / "memory.current") + _read_numbers(folder / "memory.usage_in_bytes")
        if used:
            pages = _read_fields(folder / "memory.stat")
            # In v1, only the field with the prefix includes the groups below, as the usage does.
            return max(0, used[0] - pages.get("total_inactive_file", pages.get("inactive_file", 0)))
    return None


def count_oom_kills(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Return how many processes the kernel has killed for lack of memory; None if not reported.

    In v2, a group counts the kills in all groups below, so the group whose limit applies is read. In v1, each group
    counts only its own processes.
    """
    v2 = [folder / "memory.events" for folder in _sort_by_memory_limit(root, own)]
    v1 = [folder / "memory.oom_control" for folder in reversed(list(_find_folders("memory", root, own)))]
    return next((fields["oom_kill"] for fields in map(_read_fields, v2 + v1) if "oom_kill" in fields), None)


class Throttling(NamedTuple):
    """Periods of a processor quota, those in which it was used up, and the seconds that threads waited for the next."""

    periods: int
    throttled: int
    throttled_s: float


def read_throttling(root: Path = _ROOT, own: Path = _OWN) -> Throttling | None:
    """Return the throttling so far by the processor quota of this group or an ancestor; None without a quota.

    Only groups with a quota count periods. With nested quotas, the one with the most periods is reported.
    """
    stats = [_read_fields(folder / "cpu.stat") for folder in _find_folders("cpu", root, own)]
    stat = max(stats, key=lambda fields: fields.get("nr_periods", 0))
    if not stat.get("nr_periods"):
        return None
    throttled_s = stat.get("throttled_usec", 0) / 1e6 + stat.get("throttled_time", 0) / 1e9
    return Throttling(stat["nr_periods"], stat.get("nr_throttled", 0), throttled_s)


def _sort_by_memory_limit(root: Path, own: Path) -> list[Path]:
    """Return the folders of this group and its ancestors, the lowest limit first, and the inner one of equal limits."""
    inner_first = list(_find_folders("memory", root, own))[::-1]
    return sorted(inner_first, key=_read_memory_limit)


def _read_memory_limit(folder: Path) -> int:
    """Return the group's limit in bytes, or the machine's physical memory without a lower limit."""
    limits = _read_numbers(folder / "memory.max")[:1] + _read_numbers(folder / "memory.limit_in_bytes")[:1]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def _read_quotas(folder: Path) -> Iterator[float]:
    """Yield the group's quota in processors; nothing without a limit, which v2 reports as `max` and v1 as -1."""
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


def _read_fields(path: Path) -> dict[str, int]:
    """Return the numbers in a file with a name and a number on each line; none if it cannot be read."""
    try:
        return {name: int(number) for name, number in map(str.split, path.read_text().splitlines())}
    except (OSError, ValueError):
        return {}


def _find_folders(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of the root, the ancestors and this group, in v2 and v1; only roots if `own` is unreadable."""
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
