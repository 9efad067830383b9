"""Sums of what recorded predictions used, by caller and month, and by hour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from msgspec import Struct, field
from msgspec.structs import asdict
from sqlalchemy import Connection, Table

from monitoring.cost.tables import caller_sums, traffic_hours
from monitoring.ledger.entries import sanitize_name
from monitoring.ledger.payloads import read_number
from monitoring.quality.following import RecordedRequest, WriteSums
from storage.engine import add_to_row

_BUSY_STAGES = ("decode", "infer", "explain")  # the stages that keep a worker thread busy; `queue` is waiting time
_MONTH_LENGTH = len("2026-11")


class _Traffic(Struct):
    predictions: int = 0
    busy_us: int = 0
    bytes: int = 0

    def count(self, busy_us: int, size: int) -> None:
        self.predictions += 1
        self.busy_us += busy_us
        self.bytes += size


class _Hour(_Traffic):
    requests: int = 0


class _CostSums(Struct):
    """Traffic by caller and month, and by hour."""

    callers: dict[tuple[str, str], _Traffic] = field(default_factory=lambda: defaultdict(_Traffic))
    hours: dict[str, _Hour] = field(default_factory=lambda: defaultdict(_Hour))

    def list_rows(self) -> Iterator[tuple[Table, Mapping[str, str], Mapping[str, int]]]:
        """Yield table, key and numbers of each row, always in the same order."""
        for caller, month in sorted(self.callers):
            yield caller_sums, {"caller": caller, "month": month}, asdict(self.callers[caller, month])
        for name in sorted(self.hours):
            yield traffic_hours, {"hour": name}, asdict(self.hours[name])


def add_cost_sums(_connection: Connection, requests: Sequence[RecordedRequest]) -> WriteSums:
    """Compute what requests add to the tables `caller_sums` and `traffic_hours`."""
    return partial(_write, list(_sum_costs(requests).list_rows()))


def _write(rows: Iterable[tuple[Table, Mapping[str, str], Mapping[str, int]]], connection: Connection) -> None:
    for table, key, values in rows:
        add_to_row(connection, table, key, values)


def _sum_costs(requests: Iterable[RecordedRequest]) -> _CostSums:
    sums = _CostSums()
    for request in requests:
        parsed = _read_request(request)
        if parsed is None:
            continue
        caller, count, prediction = parsed
        hour = sums.hours[request.hour]
        hour.requests += count
        if prediction is not None:
            hour.count(*prediction)
            sums.callers[caller, request.hour[:_MONTH_LENGTH]].count(*prediction)
    return sums


def _read_request(request: RecordedRequest) -> tuple[str, int, tuple[int, int] | None] | None:
    """Return the caller, the number of requests, and the busy microseconds and image bytes of a prediction, if any.

    Returns None for an entry that was changed: `atalaya ledger verify` reports it.
    """
    facts = request.document
    try:
        caller, count = sanitize_name(facts["principal"]), int(read_number(facts.get("count", 1)))
        if facts["output"] is None:
            return caller, count, None
        timing = facts["timing_us"]
        busy_us = int(sum(read_number(timing.get(stage, 0)) for stage in _BUSY_STAGES))
        return caller, count, (busy_us, int(read_number(facts["image"]["bytes"])))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
