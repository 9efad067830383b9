"""Which events of a drift detector are recorded."""

from __future__ import annotations

from api.services.measuring.drift.tracker import drop_repeats
from model.drift.detector import Alarm, AllClear
from model.drift.metrics import Metric


def make_alarm(metric: Metric, at: float, *, is_new: bool = False) -> Alarm:
    return Alarm(metric, "lower", 0.0, at, is_new)


def test_only_the_last_of_several_repeated_alarms_remains() -> None:
    """A repeated alarm only updates its finding, so an earlier one of the same metric has no effect."""
    first, last = make_alarm(Metric.BRIGHTNESS, 1.0), make_alarm(Metric.BRIGHTNESS, 3.0)
    other = make_alarm(Metric.SHARPNESS, 4.0)
    assert list(drop_repeats([first, make_alarm(Metric.BRIGHTNESS, 2.0), last, other])) == [last, other]


def test_beginnings_and_ends_remain() -> None:
    """A new alarm begins a finding and an all-clear ends one: neither is left out."""
    events: list[Alarm | AllClear] = [
        make_alarm(Metric.BRIGHTNESS, 1.0, is_new=True),
        make_alarm(Metric.BRIGHTNESS, 2.0),
        AllClear(Metric.BRIGHTNESS, 3.0),
        make_alarm(Metric.BRIGHTNESS, 4.0, is_new=True),
    ]
    assert list(drop_repeats(events)) == events
