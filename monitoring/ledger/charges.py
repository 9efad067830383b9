"""Charging quotas in the transactions that record the charged requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from storage.driver import DriverConnection

Charge = Mapping[str, Any]  # ready for JSON


class ChargeRefusal(Struct, frozen=True):
    """A charge that a quota does not allow: the error for the caller, and the status and code to record."""

    error: Exception
    status: int
    code: str


class ChargeRecorder(Protocol):
    """Charges quotas for predictions."""

    def charge(self, connection: DriverConnection, charges: Sequence[Charge]) -> Sequence[ChargeRefusal | None]:
        """Record the charges. Return for each one its rejection, or None if it was recorded."""
        ...

    def charge_deferred(self, connection: DriverConnection, charges: Sequence[Charge]) -> None:
        """Record the charges of predictions that were served while the database was unavailable."""
        ...

    def confirm(self) -> None:
        """Call this once the transaction with the last recorded charges is committed."""
        ...

    def charge_later(self, charges: Sequence[Charge]) -> None:
        """Keep charges that cannot be recorded now."""
        ...
