"""A queue that serves callers in rotation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.serving.fair_queue import FairQueue

Job = tuple[str, int]


def make_queue(jobs: list[Job]) -> FairQueue[Job]:
    queue: FairQueue[Job] = FairQueue()
    for job in jobs:
        queue.push(job[0], job)
    return queue


def test_callers_take_turns() -> None:
    """A caller with three jobs is served once before another caller's only job, and twice after it."""
    queue = make_queue([("a", 1), ("a", 2), ("a", 3), ("b", 1)])
    assert [queue.pop() for _ in range(4)] == [("a", 1), ("b", 1), ("a", 2), ("a", 3)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers())))
def test_no_job_is_lost_and_each_caller_keeps_its_order(jobs: list[Job]) -> None:
    """Each job that was pushed is popped once, and a caller's jobs are popped in the order of pushing."""
    queue = make_queue(jobs)
    popped = [queue.pop() for _ in range(len(queue))]
    assert len(queue) == 0
    for caller in "abc":
        assert [job for job in popped if job[0] == caller] == [job for job in jobs if job[0] == caller]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40))
def test_turns_are_fair(callers: list[str]) -> None:
    """Between two turns of a caller, every other waiting caller has a turn."""
    queue = make_queue([(caller, index) for index, caller in enumerate(callers)])
    popped = [queue.pop()[0] for _ in callers]
    for index, caller in enumerate(popped):
        later = popped[index + 1 :]
        if caller in later:
            until_next = later[: later.index(caller)]
            assert set(until_next) == set(later) - {caller}


def test_a_removed_job_is_not_served() -> None:
    """A removed job is not served; removing it again, or a job that is not in the queue, does nothing."""
    queue = make_queue([("a", 1), ("a", 2), ("b", 1)])
    assert queue.remove("a", ("a", 1))
    assert not queue.remove("a", ("a", 1))
    assert not queue.remove("c", ("c", 1))
    assert [queue.pop() for _ in range(len(queue))] == [("a", 2), ("b", 1)]


def test_the_last_job_of_the_largest_caller_can_be_evicted() -> None:
    """The caller with the largest weight is found, the last in turn among equals; a caller's newest job is evicted."""
    queue = make_queue([("a", 1), ("b", 1), ("b", 2), ("c", 1)])
    assert queue.find_largest({"a": 3, "b": 2, "c": 1}) == "a"
    assert queue.find_largest({"a": 1, "b": 2, "c": 2}) == "c"
    assert queue.evict_last("b") == ("b", 2)
    assert [queue.pop() for _ in range(len(queue))] == [("a", 1), ("b", 1), ("c", 1)]
