"""Reading the limits and the usage of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitoring.machine.cgroups import (
    Throttling,
    count_oom_kills,
    count_processors,
    memory_limit_bytes,
    read_throttling,
    read_working_set,
)

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
AFFINITY = len(os.sched_getaffinity(0))


class Tree:
    """The files of a cgroup file system, and the file that names the groups of this process."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup"
        self.own = folder / "own"
        self.root.mkdir()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def memory_limit_bytes(self) -> int:
        return memory_limit_bytes(self.root, self.own)

    def count_processors(self) -> int:
        return count_processors(self.root, self.own)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_memory_limit_of_both_versions(tree: Tree, name: str) -> None:
    """The limit of cgroup v2 and of v1 is read."""
    tree.write(name, "134217728\n")
    assert tree.memory_limit_bytes() == 134217728


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.max", "max\n"),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.max", ""),
        ("memory.max", "garbage"),
    ],
)
def test_no_memory_limit(tree: Tree, name: str, text: str) -> None:
    """Without a readable limit, in either version, the limit is the machine's physical memory."""
    tree.write(name, text)
    assert tree.memory_limit_bytes() == PHYSICAL


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/pod/container\n", {"pod/memory.max": "200", "pod/container/memory.max": "300"}, 200),
        ("0::/pod/container\n", {"pod/memory.max": "max", "pod/container/memory.max": "300"}, 300),
        (
            "4:cpu,memory:/pod/container\n",
            {"memory/pod/memory.limit_in_bytes": "100", "memory/pod/container/memory.limit_in_bytes": "200"},
            100,
        ),
        ("4:memory:/docker/0123\n", {"memory/memory.limit_in_bytes": "100"}, 100),
        ("4:memory:/docker/0123/inner\n", {"memory/inner/memory.limit_in_bytes": "100"}, 100),
        ("0::/../outside\n", {"memory.max": "100"}, 100),
    ],
    ids=["v2 ancestor", "v2 own", "v1 ancestor", "v1 host path", "v1 last part of a host path", "v2 outside"],
)
def test_lowest_memory_limit_counts(tree: Tree, own: str, files: dict[str, str], expected: int) -> None:
    """The lowest limit of nested groups applies, even where a container sees only the end of its path."""
    tree.own.write_text(own)
    for name, text in files.items():
        tree.write(name, text)
    assert tree.memory_limit_bytes() == expected


def write_quota(tree: Tree, version: int, group: str, quota: int, period: int = 100_000) -> None:
    if version == 2:
        tree.write(f"./{group}/cpu.max", f"{quota if quota > 0 else 'max'} {period}\n")
    else:
        tree.write(f"cpu/{group}/cpu.cfs_quota_us", f"{quota}\n")
        tree.write(f"cpu/{group}/cpu.cfs_period_us", f"{period}\n")


def name_group(tree: Tree, version: int, group: str) -> None:
    tree.own.write_text(f"0::/{group}\n" if version == 2 else f"7:cpuacct,cpu:/{group}\n3:memory:/elsewhere\n")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("quota", "period", "processors"),
    [(100_000, 100_000, 1), (50_000, 100_000, 1), (1_000, 100_000, 1), (25_000, 50_000, 1), (110_000, 100_000, 2)],
)
def test_quota_of_both_versions(tree: Tree, version: int, quota: int, period: int, processors: int) -> None:
    """A CPU quota is converted to a number of processors, rounded up, whatever its period."""
    name_group(tree, version, "own")
    write_quota(tree, version, "own", quota, period)
    assert tree.count_processors() == min(processors, AFFINITY)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("outer", "inner"), [(90_000, 900_000), (900_000, 90_000), (90_000, -1), (-1, 90_000)])
def test_smallest_quota_of_nested_groups_counts(tree: Tree, version: int, outer: int, inner: int) -> None:
    """The smallest quota between the process's group and the root applies."""
    name_group(tree, version, "pod/container")
    write_quota(tree, version, "pod", outer)
    write_quota(tree, version, "pod/container", inner)
    assert tree.count_processors() == 1


@pytest.mark.parametrize("version", [1, 2])
def test_quota_of_a_container(tree: Tree, version: int) -> None:
    """A container that sees its own group as the root, but the host's path to it, still finds its quota."""
    name_group(tree, version, "docker/0123")
    write_quota(tree, version, "", 60_000)
    assert tree.count_processors() == 1


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("quota", [-1, 10_000_000])
def test_processors_without_a_lower_quota(tree: Tree, version: int, quota: int) -> None:
    """Without a quota, or with one for more processors than there are, the CPU affinity applies."""
    name_group(tree, version, "own")
    write_quota(tree, version, "own", quota)
    assert tree.count_processors() == AFFINITY


@pytest.mark.parametrize("text", ["", "garbage", "max", "100000", "0 0", "1 2 3"])
def test_unreadable_quota(tree: Tree, text: str) -> None:
    """A file without a valid quota and period is ignored."""
    tree.write("cpu.max", text)
    tree.write("cpu/cpu.cfs_quota_us", text)
    assert tree.count_processors() == AFFINITY


def test_no_cgroups(tree: Tree) -> None:
    """Without cgroups the limits are the physical memory and the CPU affinity, and no usage is reported."""
    assert (tree.memory_limit_bytes(), tree.count_processors()) == (PHYSICAL, AFFINITY)
    assert [read(tree.root, tree.own) for read in (read_working_set, count_oom_kills, read_throttling)] == [None] * 3


@pytest.mark.parametrize(
    ("version", "usage", "stat", "oom"),
    [
        (1, "memory/own/memory.usage_in_bytes", "inactive_file 1\ntotal_inactive_file 300\n", "memory.oom_control"),
        (2, "own/memory.current", "anon 600\ninactive_file 300\n", "memory.events"),
    ],
)
def test_memory_use_of_both_versions(tree: Tree, version: int, usage: str, stat: str, oom: str) -> None:
    """The working set is the group's memory usage minus inactive file pages; out-of-memory kills are counted."""
    tree.own.write_text("0::/own\n" if version == 2 else "3:memory:/own\n")
    folder = str(Path(usage).parent)
    tree.write(usage, "1000\n")
    tree.write(f"{folder}/memory.stat", stat)
    tree.write(f"{folder}/{oom}", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert read_working_set(tree.root, tree.own) == 700
    assert count_oom_kills(tree.root, tree.own) == 2


@pytest.mark.parametrize(
    ("outer", "inner", "used", "kills"),
    [("1000000000", "max", 950, 3), ("max", "500000000", 100, 1), ("max", "max", 100, 1), ("500", "500", 100, 1)],
    ids=["outer limit", "inner limit", "no limit", "equal limits"],
)
def test_memory_use_of_the_group_whose_limit_applies(tree: Tree, outer: str, inner: str, used: int, kills: int) -> None:
    """Usage and kills are read where the limit is: an outer group also counts the processes beside this group."""
    tree.own.write_text("0::/pod/container\n")
    for folder, limit, current, killed in (("pod", outer, 990, 3), ("pod/container", inner, 100, 1)):
        tree.write(f"{folder}/memory.max", f"{limit}\n")
        tree.write(f"{folder}/memory.current", f"{current * 10**6}\n")
        tree.write(f"{folder}/memory.stat", f"inactive_file {40 * 10**6 if folder == 'pod' else 0}\n")
        tree.write(f"{folder}/memory.events", f"oom_kill {killed}\n")
    assert read_working_set(tree.root, tree.own) == used * 10**6
    assert count_oom_kills(tree.root, tree.own) == kills


def test_kills_below_an_outer_limit_of_version_1(tree: Tree) -> None:
    """In v1, a kill for an outer group's limit is counted only in the group of the killed process."""
    tree.own.write_text("3:memory:/pod/container\n")
    tree.write("memory/pod/memory.limit_in_bytes", "1000\n")
    tree.write("memory/pod/memory.usage_in_bytes", "900\n")
    tree.write("memory/pod/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    tree.write("memory/pod/container/memory.usage_in_bytes", "100\n")
    tree.write("memory/pod/container/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert read_working_set(tree.root, tree.own) == 900
    assert count_oom_kills(tree.root, tree.own) == 2


@pytest.mark.parametrize("version", [1, 2])
def test_throttling_of_both_versions(tree: Tree, version: int) -> None:
    """Throttling is read from the group with a quota: here the outer one, because the inner one has no periods."""
    name_group(tree, version, "pod/container")
    time = "throttled_usec 2500000" if version == 2 else "throttled_time 2500000000"
    prefix = "" if version == 2 else "cpu/"
    tree.write(f"{prefix}pod/cpu.stat", f"nr_periods 40\nnr_throttled 10\n{time}\n")
    tree.write(f"{prefix}pod/container/cpu.stat", f"nr_periods 0\nnr_throttled 0\n{time}\n")
    assert read_throttling(tree.root, tree.own) == Throttling(40, 10, 2.5)


@pytest.mark.parametrize("text", ["", "garbage", "nr_periods many", "usage_usec 5\n", "nr_periods 0\nnr_throttled 0\n"])
def test_no_throttling_without_a_quota(tree: Tree, text: str) -> None:
    """Without a quota, or with a file that cannot be read, no throttling is reported."""
    tree.write("cpu.stat", text)
    assert read_throttling(tree.root, tree.own) is None


def test_this_machine() -> None:
    """On this machine the limits are positive and do not exceed its memory and processors."""
    assert 0 < memory_limit_bytes() <= PHYSICAL
    assert 0 < count_processors() <= AFFINITY
