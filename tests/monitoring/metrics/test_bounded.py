"""The limit on the names that get series of their own."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from monitoring.metrics.bounded import OTHER, NameLimit


@pytest.mark.parametrize("file", [None, "names"])
def test_the_first_names_are_chosen(tmp_path: Path, file: str | None) -> None:
    """The first names keep series of their own; all later names share one."""
    limit = NameLimit(2, tmp_path / file if file else None)
    assert [limit.find(name) for name in ("a", "b", "c", "a", "d", "b")] == ["a", "b", OTHER, "a", OTHER, "b"]


def test_nothing_is_chosen_with_a_limit_of_0() -> None:
    """With a limit of 0 every name is counted under `OTHER`."""
    assert NameLimit(0).find("a") == OTHER


def test_processes_choose_the_same_names(tmp_path: Path) -> None:
    """Processes that share a file choose the same names, whatever characters these contain."""
    first, second = (NameLimit(2, tmp_path / "names") for _ in range(2))
    odd = 'https://id.example.org|"\n\u00e9'
    assert first.find(odd) == odd
    assert second.find("b") == "b"
    assert [limit.find("c") for limit in (first, second)] == [OTHER, OTHER]
    assert [limit.find(name) for limit in (first, second) for name in (odd, "b")] == [odd, "b"] * 2


def test_a_request_does_not_wait_for_the_file(tmp_path: Path) -> None:
    """While another process holds the lock on the file, a new name is counted under `OTHER`."""
    path, limit = tmp_path / "names", NameLimit(2, tmp_path / "names")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert limit.find("a") == OTHER
    assert limit.find("a") == "a"
