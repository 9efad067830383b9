"""The costs of months, for the commands that show them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Engine

from api.settings import Settings
from monitoring.cost.month import MonthCost, compute_month
from monitoring.cost.store import CostStore

_SIZES = (0.5, 1.0, 2.0)
"""Sizes of the machines to compare, relative to the current one."""


def compute_costs(settings: Settings, engine: Engine, months: Iterable[str]) -> list[MonthCost]:
    """Return the costs of each month from the sums in the database. Raises LedgerUnavailable."""
    store, machine = CostStore(engine), settings.cost.machine()
    machines = [machine.scaled(size) for size in _SIZES]
    prices, is_recorded = settings.cost.prices(), settings.ledger.enabled
    return [compute_month(store.read_month(month), prices, machines, is_recorded=is_recorded) for month in months]
