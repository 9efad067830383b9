"""Reading memory limits of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitoring.memory import memory_limit_bytes

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_limit_of_both_versions(tmp_path: Path, name: str) -> None:
    """The limit of cgroup v2 and of v1 is read."""
    write(tmp_path, name, "134217728\n")
    assert memory_limit_bytes(tmp_path) == 134217728


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.max", "max\n"),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.max", ""),
        ("memory.max", "garbage"),
    ],
)
def test_unlimited(tmp_path: Path, name: str, text: str) -> None:
    """Without a readable limit, in either version, the limit is the machine's physical memory."""
    write(tmp_path, name, text)
    assert memory_limit_bytes(tmp_path) == PHYSICAL


def test_no_cgroups(tmp_path: Path) -> None:
    """Without cgroups the limit is the machine's physical memory."""
    assert memory_limit_bytes(tmp_path) == PHYSICAL


def test_this_machine() -> None:
    """On this machine the limit is positive and at most its physical memory."""
    assert 0 < memory_limit_bytes() <= PHYSICAL
