"""Computes the cost of alternatives: sleeping without requests, or a machine of another size. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from msgspec import Struct

from monitoring.cost.formula import Amounts, Hour, Prices, Resources, price

HOURS_IN_MONTH = 730
AWAKE_BEFORE_SLEEP_H = 10 / 60
"""How long Railway waits after the last packet: https://docs.railway.com/reference/app-sleeping."""

MAX_PROCESSOR_LOAD, MAX_MEMORY_LOAD = 0.7, 0.8
_HOUR = timedelta(hours=1)


class Machine(Struct, frozen=True):
    """Processors, and gigabytes (10^9 bytes) of memory."""

    vcpus: float
    memory_gb: float

    def scaled(self, factor: float) -> Machine:
        return Machine(self.vcpus * factor, self.memory_gb * factor)


class MachineScenario(Struct, frozen=True):
    """A machine: its price for a month of 730 hours, and the shares of it that the busiest hours would have used."""

    machine: Machine
    reserved: float
    processor_load: float
    memory_load: float

    @property
    def fits(self) -> bool:
        return self.processor_load <= MAX_PROCESSOR_LOAD and self.memory_load <= MAX_MEMORY_LOAD


class Sleep(Struct, frozen=True):
    """The number of measured hours without a recorded request, and the cost that sleeping in them would have saved."""

    idle_hours: int
    saves: Amounts


def find_sleep(hours: Iterable[Hour], prices: Prices) -> Sleep:
    """Return what sleeping would have saved: each stretch of idle hours, minus the time until sleep begins.

    An hour is idle only if it has no recorded request at all, and the time until sleep begins is assumed to cost as
    much as in the most expensive idle hour: some hours were measured only in part. So this is a lower bound.
    """
    stretches = [[hour.resources or Resources() for hour in stretch] for stretch in _find_idle_stretches(hours)]
    idle = [used for stretch in stretches for used in stretch]
    awake_processor_s = AWAKE_BEFORE_SLEEP_H * max((used.processor_s for used in idle), default=0.0)
    awake_memory_gb_s = AWAKE_BEFORE_SLEEP_H * max((used.memory_gb_s for used in idle), default=0.0)
    saved = Resources()
    for stretch in stretches:
        processor_s = sum(used.processor_s for used in stretch) - awake_processor_s
        memory_gb_s = sum(used.memory_gb_s for used in stretch) - awake_memory_gb_s
        saved = saved.plus(Resources(max(0.0, processor_s), max(0.0, memory_gb_s)))
    return Sleep(len(idle), price(saved, prices))


def compare_machines(hours: Iterable[Hour], machines: Sequence[Machine], prices: Prices) -> list[MachineScenario]:
    """Return each machine with the load of the busiest hours, or an empty list without a measured hour."""
    measured = [hour.resources for hour in hours if hour.resources is not None]
    if not measured:
        return []
    processors = max(each.processor_s for each in measured) / _HOUR.total_seconds()
    memory_gb = max(each.memory_gb_s for each in measured) / _HOUR.total_seconds()
    return [
        MachineScenario(
            machine, price_reserved(machine, prices), processors / machine.vcpus, memory_gb / machine.memory_gb
        )
        for machine in machines
    ]


def price_reserved(machine: Machine, prices: Prices, hours: float = HOURS_IN_MONTH) -> float:
    """Return the price of a machine that is paid for whether it is used or not."""
    return (machine.vcpus * prices.vcpu_hour + machine.memory_gb * prices.gb_hour) * hours


def _find_idle_stretches(hours: Iterable[Hour]) -> Iterator[Sequence[Hour]]:
    """Yield each stretch of consecutive idle hours with measurements."""
    idle = [hour for hour in hours if hour.requests == 0 and hour.resources is not None]
    for _, stretch in groupby(enumerate(idle), key=lambda pair: _parse(pair[1].hour) - pair[0] * _HOUR):
        yield [hour for _, hour in stretch]


def _parse(hour: str) -> datetime:
    return datetime.fromisoformat(f"{hour}:00")
