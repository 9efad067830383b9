"""Computes the costs of a month from the resources that were used in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from monitoring.cost.formula import Amounts, Prices, Resources, Traffic, price, share, sum_measured
from monitoring.cost.scenarios import Machine, MachineScenario, Sleep, compare_machines, find_sleep
from monitoring.cost.store import MonthUse


class Cost(Struct, frozen=True):
    """What some predictions used, and its price."""

    traffic: Traffic
    resources: Resources
    amounts: Amounts


NO_COST = Cost(Traffic(), Resources(), Amounts(0.0, 0.0, 0.0))


class MonthCost(Struct, frozen=True):
    """All costs of a month, such as 2026-11.

    `measured_share` is the share of the predictions that were made in hours with measured resources: only the resources
    of those hours are priced and divided among the callers. A caller's traffic is known only for the whole month, so
    each caller is assumed to have the same share of its traffic in those hours as all together. `sleep` is None if
    requests are not recorded.
    """

    month: str
    currency: str
    whole: Cost
    callers: Mapping[str, Cost]
    measured_hours: int
    measured_share: float
    sleep: Sleep | None
    machines: Sequence[MachineScenario]


def compute_month(use: MonthUse, prices: Prices, machines: Sequence[Machine] = (), *, is_recorded: bool) -> MonthCost:
    """Compute the costs; `machines` are the sizes to compare, and `is_recorded` is whether requests are recorded."""
    measured, resources = sum_measured(use.hours)
    traffic = Traffic()
    for hour in use.hours:
        traffic = traffic.plus(hour.traffic)
    measured_share = measured.predictions / traffic.predictions if traffic.predictions else 1.0
    return MonthCost(
        use.month,
        prices.currency,
        _make_cost(traffic, resources, prices),
        {
            caller: _make_cost(own, share(resources, measured, own.scaled(measured, traffic)), prices)
            for caller, own in use.callers.items()
        },
        sum(hour.resources is not None for hour in use.hours),
        measured_share,
        find_sleep(use.hours, prices) if is_recorded else None,
        compare_machines(use.hours, machines, prices),
    )


def _make_cost(traffic: Traffic, resources: Resources, prices: Prices) -> Cost:
    return Cost(traffic, resources, price(resources, prices))
