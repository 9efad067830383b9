"""Monotonic UUIDv7s."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from monitoring.chains.ids import MonotonicIds, new_id
from tests.support.polling import PATIENCE_S


@given(st.lists(st.integers(0, 2**48 - 2), min_size=2, max_size=50))
def test_ids_ascend_whatever_the_clock_does(readings: list[int]) -> None:
    """Ids ascend even when the clock steps back, and each is a valid UUIDv7."""
    clock = iter(readings)
    ids = MonotonicIds(lambda: next(clock))
    generated = [ids.new() for _ in readings]
    assert generated == sorted(set(generated))
    for text in generated:
        assert (UUID(text).version, UUID(text).variant) == (7, "specified in RFC 4122")


def test_ids_contain_the_time() -> None:
    """The first 48 bits are milliseconds since 1970."""
    assert UUID(MonotonicIds(lambda: 1_764_000_000_123).new()).int >> 80 == 1_764_000_000_123


def test_a_busy_millisecond_runs_ahead_of_the_clock() -> None:
    """More ids than fit into a millisecond still ascend, and their time runs ahead no further than needed."""
    ids = MonotonicIds(lambda: 1000)
    generated = [ids.new() for _ in range(10_000)]
    assert generated == sorted(set(generated))
    assert UUID(generated[-1]).int >> 80 <= 1003


def test_ids_continue_after_an_earlier_id() -> None:
    """A process whose clock is behind generates no id that sorts before a recorded one."""
    earlier = MonotonicIds(lambda: 2000).new()
    ids = MonotonicIds(lambda: 1000)
    ids.start_after(earlier)
    assert ids.new() > earlier


def test_generators_do_not_collide() -> None:
    """Two generators with the same clock, each used by several threads, generate no id twice."""
    generators = [MonotonicIds(lambda: 1000), MonotonicIds(lambda: 1000)]
    with ThreadPoolExecutor(4) as pool:
        generated = list(pool.map(lambda index: generators[index % 2].new(), range(20_000)))
    assert len(set(generated)) == 20_000


def test_processes_do_not_collide() -> None:
    """Four processes forked from one, all in the same millisecond, generate no id twice."""
    context = multiprocessing.get_context("fork")
    shared = MonotonicIds(lambda: 1000), context.Barrier(4, timeout=PATIENCE_S)
    with ProcessPoolExecutor(4, context, _share, shared) as pool:
        chunks = list(pool.map(_generate, [10_000] * 4))
    assert len({text for chunk in chunks for text in chunk}) == 40_000


def test_single_ids_are_version_7() -> None:
    """`new_id` generates distinct UUIDv7s."""
    generated = {new_id() for _ in range(1000)}
    assert len(generated) == 1000
    assert {UUID(text).version for text in generated} == {7}


_ids = MonotonicIds()
_barrier: Barrier


def _share(ids: MonotonicIds, barrier: Barrier) -> None:
    global _ids, _barrier
    _ids, _barrier = ids, barrier


def _generate(count: int) -> list[str]:
    _barrier.wait()  # until each process has its call: otherwise one process could run several
    return [_ids.new() for _ in range(count)]
