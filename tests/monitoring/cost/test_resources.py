"""Measuring what a process uses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from monitoring.cost.resources import HourResources, Reading, ResourceMeter, read_resources
from monitoring.machine.network import read_sent_bytes

HALF_PAST_NINE = datetime(2026, 11, 3, 9, 30, tzinfo=UTC).timestamp()


def make_meter(times: list[float], readings: list[Reading], processes: int = 1) -> ResourceMeter:
    clock: Iterator[float] = iter(times)
    values: Iterator[Reading] = iter(readings)
    return ResourceMeter(processes, lambda: next(clock), lambda: next(values))


def test_use_is_spread_over_the_hours() -> None:
    """Memory is averaged over the time, and what was used in 90 minutes belongs to two hours in proportion."""
    meter = make_meter(
        [HALF_PAST_NINE, HALF_PAST_NINE + 5400],
        [Reading(2.0, 100_000_000, 1000), Reading(11.0, 300_000_000, 4000)],
    )
    first, second = meter.measure()
    assert (first.hour, first.sent_bytes, second.hour, second.sent_bytes) == (
        "2026-11-03T09",
        1000,
        "2026-11-03T10",
        2000,
    )
    assert (first.processor_s, second.processor_s) == pytest.approx((11 / 3, 22 / 3))
    assert (first.memory_gb_s, second.memory_gb_s) == pytest.approx((0.2 * 1800, 0.2 * 3600))


def test_processes_divide_what_their_container_sent() -> None:
    """All workers see the bytes of the container, and each counts its part."""
    meter = make_meter([HALF_PAST_NINE, HALF_PAST_NINE + 60], [Reading(0, 0, 0), Reading(1, 0, 4000)], processes=4)
    (hour,) = meter.measure()
    assert hour.sent_bytes == 1000


def test_a_clock_that_is_set_back() -> None:
    """Processor time counts in the present hour, and no memory is subtracted."""
    meter = make_meter([HALF_PAST_NINE, HALF_PAST_NINE - 7200], [Reading(0, 1000, 0), Reading(1.5, 1000, 0)])
    assert meter.measure() == [HourResources("2026-11-03T07", 1.5, 0.0, 0)]


def test_this_process() -> None:
    """Processor time and memory of a running process are known."""
    reading = read_resources()
    assert reading.processor_s > 0
    assert reading.memory_bytes > 1_000_000


def test_sent_bytes_leave_out_the_loopback(tmp_path: Path) -> None:
    """Only what leaves the machine or container counts; a system that reports nothing has sent nothing."""
    devices = tmp_path / "dev"
    devices.write_text(
        "Inter-|   Receive                 |  Transmit\n"
        " face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs\n"
        "    lo:  700 1 0 0 0 0 0 0  700 1 0 0 0 0 0 0\n"
        "  eth0: 5000 9 0 0 0 0 0 0 1200 4 0 0 0 0 0 0\n"
        "  eth1:   10 1 0 0 0 0 0 0   34 1 0 0 0 0 0 0\n"
    )
    assert read_sent_bytes(devices) == 1234
    assert read_sent_bytes(tmp_path / "missing") == 0
