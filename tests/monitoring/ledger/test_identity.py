"""Ids of predictions."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from monitoring.ledger.identity import Ids


@given(st.lists(st.integers(0, 2**48 - 2), min_size=2, max_size=50))
def test_ids_ascend_whatever_the_clock_does(readings: list[int]) -> None:
    """Ids sort in the order they were given out, also where the clock steps back; each is a UUIDv7 of the RFC."""
    clock = iter(readings)
    ids = Ids(lambda: next(clock))
    given_out = [ids.new() for _ in readings]
    assert given_out == sorted(set(given_out))
    for text in given_out:
        assert (UUID(text).version, UUID(text).variant) == (7, "specified in RFC 4122")


def test_the_time_is_in_the_id() -> None:
    """The first 48 bits are milliseconds since 1970."""
    assert UUID(Ids(lambda: 1_764_000_000_123).new()).int >> 80 == 1_764_000_000_123


def test_a_busy_millisecond_goes_on_into_the_next() -> None:
    """More ids than a millisecond has room for still ascend, with the time moved on by what was needed."""
    ids = Ids(lambda: 1000)
    given_out = [ids.new() for _ in range(10_000)]
    assert given_out == sorted(set(given_out))
    assert UUID(given_out[-1]).int >> 80 <= 1003


def test_a_start_goes_on_after_the_last_id() -> None:
    """A process that starts with its clock behind gives no id that sorts before what is recorded."""
    earlier = Ids(lambda: 2000).new()
    ids = Ids(lambda: 1000)
    ids.start_after(earlier)
    assert ids.new() > earlier


def test_sources_do_not_collide() -> None:
    """Two sources with the same clock, each asked by several threads, give no id twice."""
    sources = [Ids(lambda: 1000), Ids(lambda: 1000)]
    with ThreadPoolExecutor(4) as pool:
        given_out = list(pool.map(lambda index: sources[index % 2].new(), range(20_000)))
    assert len(set(given_out)) == 20_000


def test_processes_do_not_collide() -> None:
    """Four processes that are forked from one, all in the same millisecond, give no id twice."""
    shared = Ids(lambda: 1000)
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork"), _share, (shared,)) as pool:
        parts = list(pool.map(_some, [5000] * 8))
    assert len({text for part in parts for text in part}) == 40_000


_source = Ids()


def _share(source: Ids) -> None:
    global _source  # noqa: PLW0603  (what a forked process begins with)
    _source = source


def _some(count: int) -> list[str]:
    return [_source.new() for _ in range(count)]
