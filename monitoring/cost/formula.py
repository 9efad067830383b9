"""Divides the measured resources among callers and predictions, and prices them. Pure arithmetic.

Only the total processor time of the processes is measured; the ledger records how long each prediction kept a worker
thread busy. A caller is charged for that time, and for an equal part, per prediction, of the rest: HTTP, login,
recording and background work. Memory is divided in proportion to processor time, bytes sent in proportion to
predictions. The shares add up to the total.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

MICROSECONDS = 1_000_000  # in a second
_SECONDS_IN_HOUR = 3600
BYTES_IN_GB = 1_000_000_000


class Traffic(Struct, frozen=True):
    """Predictions, the seconds for which they kept a worker thread busy, and the bytes of their images."""

    predictions: float = 0
    busy_s: float = 0.0
    received_bytes: float = 0

    def plus(self, other: Traffic) -> Traffic:
        return Traffic(
            self.predictions + other.predictions,
            self.busy_s + other.busy_s,
            self.received_bytes + other.received_bytes,
        )

    def scaled(self, part: Traffic, whole: Traffic) -> Traffic:
        """Multiply each number by the ratio of this number in `part` to that in `whole`."""
        return Traffic(
            self.predictions * _divide(part.predictions, whole.predictions),
            self.busy_s * _divide(part.busy_s, whole.busy_s),
            self.received_bytes * _divide(part.received_bytes, whole.received_bytes),
        )


class Resources(Struct, frozen=True):
    """The resources that cost money: processor seconds, gigabyte-seconds (10^9 bytes) of memory, and bytes sent."""

    processor_s: float = 0.0
    memory_gb_s: float = 0.0
    sent_bytes: float = 0.0

    def plus(self, other: Resources) -> Resources:
        return Resources(
            self.processor_s + other.processor_s,
            self.memory_gb_s + other.memory_gb_s,
            self.sent_bytes + other.sent_bytes,
        )


class Hour(Struct, frozen=True):
    """An hour, such as 2026-11-03T09. `resources` is None if no process has measured them."""

    hour: str
    requests: int
    traffic: Traffic
    resources: Resources | None


class Prices(Struct, frozen=True):
    """Prices per processor hour, per gigabyte-hour of memory, and per gigabyte sent."""

    vcpu_hour: float
    gb_hour: float
    sent_gb: float
    currency: str


class Amounts(Struct, frozen=True):
    """Money, in the currency of the prices."""

    processor: float
    memory: float
    sent: float

    @property
    def total(self) -> float:
        return self.processor + self.memory + self.sent


RAILWAY = Prices(vcpu_hour=0.02778, gb_hour=0.01386, sent_gb=0.05, currency="USD")
"""Railway bills $0.000463 a minute for a vCPU and $0.000231 for a GB: https://docs.railway.com/reference/pricing."""


def _divide(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def price(resources: Resources, prices: Prices) -> Amounts:
    return Amounts(
        resources.processor_s / _SECONDS_IN_HOUR * prices.vcpu_hour,
        resources.memory_gb_s / _SECONDS_IN_HOUR * prices.gb_hour,
        resources.sent_bytes / BYTES_IN_GB * prices.sent_gb,
    )


def sum_measured(hours: Iterable[Hour]) -> tuple[Traffic, Resources]:
    """Return traffic and resources of the hours in which resources were measured."""
    traffic, resources = Traffic(), Resources()
    for hour in hours:
        if hour.resources is not None:
            traffic, resources = traffic.plus(hour.traffic), resources.plus(hour.resources)
    return traffic, resources


def share(resources: Resources, everyone: Traffic, own: Traffic) -> Resources:
    """Return the part of `resources`, which served `everyone`, that was used for `own` predictions."""
    if not everyone.predictions:
        return Resources()
    by_number = own.predictions / everyone.predictions
    # Threads that waited for a processor were busy for longer than they computed.
    computing = min(1.0, resources.processor_s / everyone.busy_s) if everyone.busy_s else 0.0
    rest_s = resources.processor_s - computing * everyone.busy_s
    processor_s = computing * own.busy_s + rest_s * by_number
    by_time = processor_s / resources.processor_s if resources.processor_s else by_number
    return Resources(processor_s, resources.memory_gb_s * by_time, resources.sent_bytes * by_number)
