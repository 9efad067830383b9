"""Lines of callers, served in turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.serving.fair_queue import FairQueue


def lines_of(jobs: list[tuple[str, int]]) -> FairQueue[tuple[str, int]]:
    lines: FairQueue[tuple[str, int]] = FairQueue()
    for job in jobs:
        lines.push(job[0], job)
    return lines


def test_callers_take_turns() -> None:
    """Who sent three before another sent one is served once before that other, and twice after."""
    lines = lines_of([("a", 1), ("a", 2), ("a", 3), ("b", 1)])
    assert [lines.pop() for _ in range(4)] == [("a", 1), ("b", 1), ("a", 2), ("a", 3)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers())))
def test_nobody_is_lost_and_each_line_keeps_its_order(jobs: list[tuple[str, int]]) -> None:
    """Everybody who joined comes out once, each caller's in the order of joining."""
    lines = lines_of(jobs)
    out = [lines.pop() for _ in range(len(lines))]
    assert len(lines) == 0
    for caller in "abc":
        assert [job for job in out if job[0] == caller] == [job for job in jobs if job[0] == caller]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40))
def test_turns_are_fair(callers: list[str]) -> None:
    """Between two turns of one caller every other who waits has one."""
    lines = lines_of([(caller, index) for index, caller in enumerate(callers)])
    out = [lines.pop()[0] for _ in callers]
    for index, caller in enumerate(out):
        later = out[index + 1 :]
        if caller in later:
            until_next = later[: later.index(caller)]
            assert set(until_next) == set(later) - {caller}


def test_leaving() -> None:
    """Who leaves is not served; leaving twice, or after one's turn, changes nothing."""
    lines = lines_of([("a", 1), ("a", 2), ("b", 1)])
    assert lines.remove("a", ("a", 1))
    assert not lines.remove("a", ("a", 1))
    assert not lines.remove("c", ("c", 1))
    assert [lines.pop() for _ in range(len(lines))] == [("a", 2), ("b", 1)]


def test_the_last_of_whoever_has_most() -> None:
    """Who has most is found, of equals the last to be served, and whoever came last in a line can be sent away."""
    lines = lines_of([("a", 1), ("b", 1), ("b", 2), ("c", 1)])
    assert lines.find_largest({"a": 3, "b": 2, "c": 1}) == "a"
    assert lines.find_largest({"a": 1, "b": 2, "c": 2}) == "c"
    assert lines.evict_last("b") == ("b", 2)
    assert [lines.pop() for _ in range(len(lines))] == [("a", 1), ("b", 1), ("c", 1)]
