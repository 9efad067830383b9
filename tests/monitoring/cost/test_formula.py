"""The formula for costs in docs/quality.md."""

from __future__ import annotations

import pytest

from monitoring.cost.formula import RAILWAY, Hour, Prices, Resources, Traffic, price, share
from monitoring.cost.month import compute_month
from monitoring.cost.scenarios import Machine, compare_machines, find_sleep
from monitoring.cost.store import MonthUse

PRICES = Prices(vcpu_hour=3.6, gb_hour=1.8, sent_gb=0.5, currency="EUR")
EVERYONE = Traffic(predictions=10, busy_s=8.0, received_bytes=1000)
USED = Resources(processor_s=12.0, memory_gb_s=60.0, sent_bytes=5e6)


def make_hour(number: int, predictions: int = 0, measured: Resources | None = USED) -> Hour:
    return Hour(f"2026-11-01T{number:02}", predictions, Traffic(predictions, float(predictions)), measured)


def test_price_of_resources() -> None:
    """Prices are per hour of a processor and of a gigabyte, and per gigabyte sent."""
    amounts = price(Resources(processor_s=1000, memory_gb_s=7200, sent_bytes=2e9), PRICES)
    assert (amounts.processor, amounts.memory, amounts.sent, amounts.total) == pytest.approx((1.0, 3.6, 1.0, 5.6))


def test_railway_prices() -> None:
    """A processor and a gigabyte of memory for 30 days cost the 20 and 10 dollars that Railway advertises."""
    month = 30 * 24 * 3600
    amounts = price(Resources(processor_s=month, memory_gb_s=month), RAILWAY)
    assert (amounts.processor, amounts.memory) == pytest.approx((20, 10), rel=0.01)


def test_a_caller_pays_for_its_time_and_a_part_of_the_rest() -> None:
    """A caller pays for its busy time and a share, by number of predictions, of the rest; memory is shared likewise."""
    own = share(USED, EVERYONE, Traffic(predictions=4, busy_s=6.0))
    assert own == Resources(6.0 + 4 * 4 / 10, 60 * 7.6 / 12, 2e6)


def test_waiting_threads_do_not_raise_the_cost() -> None:
    """If threads were busy for longer than the processors, their busy time is scaled down to processor time."""
    own = share(Resources(processor_s=4.0), EVERYONE, Traffic(predictions=1, busy_s=2.0))
    assert own.processor_s == pytest.approx(1.0)


def test_shares_add_up_to_the_whole() -> None:
    """Together, all callers pay for everything that was used."""
    callers = [Traffic(7, 1.5), Traffic(2, 6.0), Traffic(1, 0.5)]
    shares = [share(USED, EVERYONE, own) for own in callers]
    total = Resources()
    for each in shares:
        total = total.plus(each)
    assert (total.processor_s, total.memory_gb_s, total.sent_bytes) == pytest.approx((12.0, 60.0, 5e6))


def test_without_predictions_nobody_pays() -> None:
    """The resources that an idle gateway uses are charged to no caller."""
    assert share(USED, Traffic(), Traffic()) == Resources()


def test_only_measured_hours_are_paid_for() -> None:
    """Callers share the resources of the measured hours, even for predictions in other hours."""
    hours = [make_hour(0, 6), make_hour(1, 2, None)]
    month = compute_month(MonthUse("2026-11", hours, {"ana": Traffic(8, 8.0)}), PRICES, is_recorded=True)
    assert month.measured_share == 0.75
    assert month.whole.resources == USED
    assert month.callers["ana"].amounts.total == pytest.approx(month.whole.amounts.total)
    assert month.callers["ana"].traffic.predictions == 8


@pytest.mark.parametrize("unmeasured_s", [10.0, 250.0, 5000.0])
def test_costs_add_up_if_some_hours_were_not_measured(unmeasured_s: float) -> None:
    """The callers' costs add up to the total, however long predictions took in the hours without measurements."""
    used = Resources(processor_s=80.0, memory_gb_s=10.0, sent_bytes=1e6)
    hours = [
        Hour("2026-11-03T09", 1000, Traffic(1000, 50.0, 1e6), used),
        Hour("2026-11-03T10", 500, Traffic(500, unmeasured_s, 4e6), None),
    ]
    callers = {"ana": Traffic(1000, 50.0, 1e6), "bea": Traffic(500, unmeasured_s, 4e6)}
    month = compute_month(MonthUse("2026-11", hours, callers), PRICES, is_recorded=True)
    shares = [cost.resources for cost in month.callers.values()]
    assert sum(each.processor_s for each in shares) == pytest.approx(80.0)
    assert sum(each.memory_gb_s for each in shares) == pytest.approx(10.0)
    assert sum(each.sent_bytes for each in shares) == pytest.approx(1e6)
    busy_s = 50.0 * unmeasured_s / (50.0 + unmeasured_s)  # of bea, in measured hours
    assert month.callers["bea"].resources.processor_s == pytest.approx(busy_s + 30.0 / 3)


def test_sleep_saves_idle_hours_but_the_time_until_it_begins() -> None:
    """Sleeping saves the cost of idle hours, except for the first ten minutes of each idle period."""
    hours = [make_hour(0, 1), make_hour(1), make_hour(2), make_hour(3, 1), make_hour(4), make_hour(5, 0, None)]
    sleep = find_sleep(hours, PRICES)
    assert sleep.idle_hours == 3
    assert sleep.saves.memory == pytest.approx((60 * (2 - 1 / 6) + 60 * (1 - 1 / 6)) * 1.8 / 3600)
    assert sleep.saves.processor == pytest.approx(12 * (3 - 2 / 6) * 3.6 / 3600)


def test_a_partly_measured_hour_saves_only_what_it_used_after_ten_minutes() -> None:
    """Of an hour that was measured for five minutes, sleeping saves nothing; with the next hour, 55 minutes."""
    five_minutes = Resources(processor_s=1.0, memory_gb_s=5.0)
    hours = [
        make_hour(0, 0, five_minutes),
        make_hour(1, 1),
        make_hour(2, 0, five_minutes),
        make_hour(3),
        make_hour(4, 1, five_minutes),
    ]
    sleep = find_sleep(hours, PRICES)
    assert sleep.idle_hours == 3
    assert sleep.saves.memory == pytest.approx(55.0 * 1.8 / 3600)
    assert sleep.saves.processor == pytest.approx(11.0 * 3.6 / 3600)


def test_without_records_the_saving_is_unknown() -> None:
    """If requests are not recorded, measured hours are not assumed to be idle."""
    use = MonthUse("2026-11", [make_hour(0), make_hour(1, 0, None)], {})
    month = compute_month(use, PRICES, is_recorded=False)
    assert (month.measured_hours, month.sleep) == (1, None)
    recorded = compute_month(use, PRICES, is_recorded=True).sleep
    assert recorded is not None
    assert recorded.idle_hours == 1


def test_machines_are_compared_with_the_busiest_hour() -> None:
    """A machine is too small if the busiest hour would use more than 70 % of its processors or 80 % of its memory."""
    busiest = Resources(processor_s=3600 * 0.8, memory_gb_s=3600 * 0.3)
    hours = [make_hour(0, 1), make_hour(1, 1, busiest)]
    small, large = compare_machines(hours, [Machine(1, 0.5), Machine(2, 1)], PRICES)
    assert (small.processor_load, small.memory_load, small.fits) == pytest.approx((0.8, 0.6, False))
    assert (large.processor_load, large.fits) == pytest.approx((0.4, True))
    assert (small.reserved, large.reserved) == pytest.approx((730 * 4.5, 730 * 9))
    assert compare_machines([make_hour(0, 1, None)], [Machine(1, 1)], PRICES) == []
