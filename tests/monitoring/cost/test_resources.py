"""Measuring the resources that a process uses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from monitoring.cost.resources import HourResources, Reading, ResourceMeter, read_resources
from monitoring.machine.network import read_sent_bytes

HALF_PAST_NINE = datetime(2026, 11, 3, 9, 30, tzinfo=UTC).timestamp()


def make_meter(end: float, duration_s: float, readings: tuple[Reading, Reading], processes: int = 1) -> ResourceMeter:
    """Make a meter that measures once, at `end`, `duration_s` seconds after it was made."""
    elapsed: Iterator[float] = iter((5.0, 5.0 + duration_s))
    values: Iterator[Reading] = iter(readings)
    return ResourceMeter(processes, lambda: end, lambda: next(elapsed), lambda: next(values))


def test_use_is_spread_over_the_hours() -> None:
    """Use during 90 minutes is divided between two hours in proportion; memory is averaged over the whole time."""
    meter = make_meter(HALF_PAST_NINE + 5400, 5400, (Reading(2.0, 100_000_000, 1000), Reading(11.0, 300_000_000, 4000)))
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
    """Every worker sees all bytes that its container has sent, and counts only its share."""
    meter = make_meter(HALF_PAST_NINE, 60, (Reading(0, 0, 0), Reading(1, 0, 4000)), processes=4)
    (hour,) = meter.measure()
    assert hour.sent_bytes == 1000


@pytest.mark.parametrize(("step_s", "hour"), [(-7200, "2026-11-03T07"), (0, "2026-11-03T09"), (10**9, "2058-07-12T11")])
def test_a_clock_that_is_set(step_s: int, hour: str) -> None:
    """When the clock is changed, a measured minute still counts as one minute, in the hour that the clock shows."""
    meter = make_meter(HALF_PAST_NINE + step_s, 60, (Reading(0, 10**9, 0), Reading(1.5, 10**9, 0)))
    assert meter.measure() == [HourResources(hour, 1.5, 60.0, 0)]


def test_this_process() -> None:
    """The processor time and memory of this process can be read."""
    reading = read_resources()
    assert reading.processor_s > 0
    assert reading.memory_bytes > 1_000_000


def test_sent_bytes_leave_out_the_loopback(tmp_path: Path) -> None:
    """Bytes sent over the loopback device are not counted; without a list of devices the count is 0."""
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
