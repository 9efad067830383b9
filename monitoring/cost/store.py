"""Adds measured resources to the database, and reads what was used in a month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Engine, Table, select

from monitoring.cost.formula import MICROSECONDS, Hour, Resources, Traffic
from monitoring.cost.resources import HourResources
from monitoring.cost.tables import caller_sums, resource_hours, traffic_hours
from monitoring.ledger.entries import sanitize_name
from monitoring.ledger.transactions import ledger_errors
from storage.engine import add_to_row
from storage.transactions import WRITING


class MonthUse(Struct, frozen=True):
    """What was used in a month, such as 2026-11: its hours with traffic or measurements, and the callers' sums."""

    month: str
    hours: Sequence[Hour]
    callers: Mapping[str, Traffic]


class CostStore:
    """Every method raises LedgerUnavailable while the database is unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._reading = engine
        self._writing = engine.execution_options(**WRITING)

    def add_resources(self, measured: Sequence[HourResources]) -> None:
        """Add what a process has used."""
        with ledger_errors(self._writing.url), self._writing.begin() as connection:
            for each in measured:
                values = {name: getattr(each, name) for name in ("processor_s", "memory_gb_s", "sent_bytes")}
                add_to_row(connection, resource_hours, {"hour": each.hour}, values)

    def read_month(self, month: str, caller: str | None = None) -> MonthUse:
        """Return what was used in a month. With `caller`, the sums are only those of this caller."""
        callers = caller_sums.c
        own = select(callers.caller, callers.predictions, callers.busy_us, callers.bytes).where(callers.month == month)
        if caller is not None:
            own = own.where(callers.caller == sanitize_name(caller))
        with ledger_errors(self._reading.url), self._reading.begin() as connection:
            busy, measured = (_read_hours(connection, table, month) for table in (traffic_hours, resource_hours))
            sums = {row.caller: _to_traffic(row) for row in connection.execute(own.order_by(callers.caller))}
        hours = [_make_hour(name, busy.get(name), measured.get(name)) for name in sorted(busy.keys() | measured.keys())]
        return MonthUse(month, hours, sums)


def _make_hour(name: str, traffic: Any, measured: Any) -> Hour:
    return Hour(
        name,
        traffic.requests if traffic else 0,
        _to_traffic(traffic) if traffic else Traffic(),
        Resources(measured.processor_s, measured.memory_gb_s, measured.sent_bytes) if measured else None,
    )


def _to_traffic(row: Any) -> Traffic:
    return Traffic(row.predictions, row.busy_us / MICROSECONDS, row.bytes)


def _read_hours(connection: Connection, table: Table, month: str) -> dict[str, Any]:
    """Return the rows of a month by hour. Its hours sort before the next month even if punctuation is ignored."""
    year, number = map(int, month.split("-"))
    next_month = f"{year + number // 12:04}-{number % 12 + 1:02}"
    statement = select(table).where(table.c.hour >= month, table.c.hour < next_month)
    return {row.hour: row for row in connection.execute(statement)}
