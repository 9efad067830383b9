"""What recorded predictions took, summed by caller and month, and by hour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Table

from monitoring.chains.timestamps import read_hour
from monitoring.cost.tables import caller_sums, cost_sum_ends, traffic_hours
from monitoring.ledger.entries import sanitize_name
from monitoring.ledger.payloads import parse_json, read_number
from monitoring.quality.following import ChainFollower
from storage.engine import dialect_insert

_BUSY_STAGES = ("decode", "infer", "explain")  # all run in one thread; `queue` only waits
_MONTH_LENGTH = len("2026-11")


@dataclass(slots=True)
class _Traffic:
    predictions: int = 0
    busy_us: int = 0
    bytes: int = 0

    def count(self, busy_us: int, size: int) -> None:
        self.predictions += 1
        self.busy_us += busy_us
        self.bytes += size


@dataclass(slots=True)
class _Hour(_Traffic):
    requests: int = 0


@dataclass(slots=True)
class CostSums:
    """By caller and month, and by hour."""

    callers: dict[tuple[str, str], _Traffic] = field(default_factory=lambda: defaultdict(_Traffic))
    hours: dict[str, _Hour] = field(default_factory=lambda: defaultdict(_Hour))


class CostSumUpdater(ChainFollower[CostSums]):
    """Adds to the tables `caller_sums` and `traffic_hours`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, cost_sum_ends)

    def sum_up(self, documents: Iterable[str]) -> CostSums:
        sums = CostSums()
        for document in documents:
            request = _read_request(document)
            if request is None:
                continue
            caller, name, count, prediction = request
            hour = sums.hours[name]
            hour.requests += count
            if prediction is not None:
                hour.count(*prediction)
                sums.callers[caller, name[:_MONTH_LENGTH]].count(*prediction)
        return sums

    def add(self, connection: Connection, sums: CostSums) -> None:
        for caller, month in sorted(sums.callers):
            traffic = asdict(sums.callers[caller, month])
            add_to_row(connection, caller_sums, {"caller": caller, "month": month}, traffic)
        for name in sorted(sums.hours):
            add_to_row(connection, traffic_hours, {"hour": name}, asdict(sums.hours[name]))


def add_to_row(connection: Connection, table: Table, key: Mapping[str, str], values: Mapping[str, float]) -> None:
    """Add to the numbers of a row, which may not exist yet."""
    added = dialect_insert(table, connection.dialect).values(**key, **values)
    totals = {name: table.c[name] + added.excluded[name] for name in values}
    connection.execute(added.on_conflict_do_update(index_elements=table.primary_key, set_=totals))


def _read_request(document: str) -> tuple[str, str, int, tuple[int, int] | None] | None:
    """Return caller, hour and number of the requests, and microseconds and bytes of a prediction.

    None for an entry that was changed: `atalaya ledger verify` reports it.
    """
    try:
        facts: Any = parse_json(document)
        caller, hour = sanitize_name(facts["principal"]), read_hour(facts["at"])
        count = int(read_number(facts.get("count", 1)))
        if facts["output"] is None:
            return caller, hour, count, None
        timing = facts["timing_us"]
        busy_us = int(sum(read_number(timing.get(stage, 0)) for stage in _BUSY_STAGES))
        return caller, hour, count, (busy_us, int(read_number(facts["image"]["bytes"])))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
