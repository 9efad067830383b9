"""The cost of predictions: charged to quotas with the ledger's entries, and estimated for dry runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus

from msgspec import Struct

from auth.principal import Principal
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import Limits, QuotaCharge, list_owners
from monitoring.ledger.charges import Charge, ChargeRefusal
from storage.driver import DriverConnection


class QuotaChargeRecorder:
    """Charges quotas in the ledger's transactions, together with the entries of the predictions."""

    def __init__(self, meter: UsageMeter) -> None:
        self._meter = meter

    def charge(self, connection: DriverConnection, charges: Sequence[Charge]) -> Sequence[ChargeRefusal | None]:
        refusals = self._meter.charge(connection, [decode_charge(charge) for charge in charges])
        return [ChargeRefusal(error, HTTPStatus.TOO_MANY_REQUESTS, error.code) if error else None for error in refusals]

    def charge_deferred(self, connection: DriverConnection, charges: Sequence[Charge]) -> None:
        self._meter.charge_deferred(connection, [decode_charge(charge) for charge in charges])

    def confirm(self) -> None:
        self._meter.confirm()

    def charge_later(self, charges: Sequence[Charge]) -> None:
        for charge in charges:
            self._meter.charge_later(decode_charge(charge))


def encode_charge(charge: QuotaCharge) -> Charge:
    """Return the charge in the ledger's form, ready for JSON."""
    return {"owners": charge.owners, "month": charge.month, "requests": charge.requests, "pixels": charge.pixels}


def decode_charge(charge: Charge) -> QuotaCharge:
    return QuotaCharge(tuple(charge["owners"]), charge["month"], charge["requests"], charge["pixels"])


class CostEstimate(Struct, frozen=True):
    """The cost of one request in pixels; `remaining` is the lower of what the account and the API key have left."""

    pixels: int
    remaining: Limits


async def estimate_cost(meter: UsageMeter, principal: Principal, pixels: int) -> CostEstimate:
    """Return what a prediction of an image with this many pixels would cost. Raises DatabaseUnavailable."""
    report = await meter.report(list_owners(principal))
    requests = _find_smallest(tally.remaining[0] for tally in report.tallies)
    return CostEstimate(pixels, (requests, _find_smallest(tally.remaining[1] for tally in report.tallies)))


def _find_smallest(limits: Iterable[int | None]) -> int | None:
    """Return the smallest limit, or None if there is no limit."""
    return min((limit for limit in limits if limit is not None), default=None)
