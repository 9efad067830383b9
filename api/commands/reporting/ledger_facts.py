"""The facts about a quarter in the ledger, collected in one pass over its entries."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from msgspec import Struct, field
from sqlalchemy import Connection, select

from api.commands.reporting.document import (
    AliasChange,
    CallerTraffic,
    CandidateVerdict,
    ErrorCount,
    Incident,
    PeriodTraffic,
    RuntimeChange,
    find_runtime_changes,
)
from api.commands.reporting.quarter import Quarter
from model.canary import judge
from model.confidence.abstention import AbstentionReason
from model.registry.moves import parse_move
from monitoring.chains.timestamps import format_timestamp, parse_timestamp
from monitoring.ledger.entries import MODEL_SUBJECT, EntryKind, name_model_subject, sanitize_name
from monitoring.ledger.payloads import parse_json, read_number
from monitoring.ledger.tables import ledger_entries, ledger_payloads

PERCENTILES = (50, 95, 99)
INCIDENT_SHARE, _INCIDENT_MIN_ERRORS = 0.01, 5
_SERVER_ERROR, _CLIENT_ERROR = 500, 400
_DAY_LENGTH, _MONTH_LENGTH = len("2026-11-03"), len("2026-11")
_CHUNK = 1000
_CHANGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading an altered entry may raise."""


class _Mean(Struct):
    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class _Period(Struct):
    requests: int = 0
    predictions: int = 0
    abstained: int = 0
    client_errors: int = 0
    server_errors: int = 0
    latency_us: array[float] = field(default_factory=lambda: array("f"))
    brightness: _Mean = field(default_factory=_Mean)


class _Caller(Struct):
    predictions: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    brightness: _Mean = field(default_factory=_Mean)


class _Span(Struct):
    first_at: str
    last_at: str


class _PredictionFacts(Struct, frozen=True):
    version: tuple[str, str]
    caller: str
    reason: str | None
    brightness: float | None
    latency_us: float
    runtime: Mapping[str, str]


class QuarterFacts:
    """Collects facts with `add`, and summarises them in lists."""

    def __init__(self, quarter: Quarter) -> None:
        self._months = {month: _Period() for month in quarter.months}
        self._weeks = {_find_monday(day): _Period() for day in quarter.days}
        self._callers = defaultdict[str, _Caller](_Caller)
        self._errors = Counter[tuple[int, str]]()
        self._days = defaultdict[str, Counter[str]](Counter)
        # For each part of the runtime and each day, when each value was first used on it.
        self._runtimes = defaultdict[str, defaultdict[str, dict[str, str]]](lambda: defaultdict(dict))
        self.versions: dict[tuple[str, str], _Span] = {}
        self.aliases: list[AliasChange] = []
        self.verdicts: list[CandidateVerdict] = []
        self.unreadable = 0

    def add(self, document: str) -> None:
        """Count an entry. An altered one only counts as unreadable; `atalaya ledger verify` reports what is wrong."""
        try:
            facts = parse_json(document)
            kind = facts.get("kind", EntryKind.PREDICTION)
            if kind == EntryKind.ALIAS_MOVED:
                self._add_move(facts)
            elif kind == EntryKind.CANARY_VERDICT:
                self._add_verdict(facts)
            elif kind == EntryKind.PREDICTION:
                self._add_request(facts)
        except _CHANGED:
            self.unreadable += 1

    def _add_request(self, facts: Mapping[str, Any]) -> None:
        # Everything is read before anything is counted, because reading an altered entry fails.
        parse_timestamp(facts["at"])
        at, status, count = facts["at"], int(facts["status"]), int(read_number(facts.get("count", 1)))
        periods = self._months[at[:_MONTH_LENGTH]], self._weeks[_find_monday(at[:_DAY_LENGTH])]
        code = str(facts["code"]) if status >= _CLIENT_ERROR else ""
        prediction = None if facts["output"] is None else _read_prediction(facts)
        day = self._days[at[:_DAY_LENGTH]]
        day["requests"] += count
        if status >= _CLIENT_ERROR:
            self._errors[status, code] += count
            if status >= _SERVER_ERROR:
                day["server_errors"] += count
        for period in periods:
            period.requests += count
            period.client_errors += count if _CLIENT_ERROR <= status < _SERVER_ERROR else 0
            period.server_errors += count if status >= _SERVER_ERROR else 0
        if prediction is not None:
            self._add_prediction(prediction, at, periods)

    def _add_prediction(self, facts: _PredictionFacts, at: str, periods: Sequence[_Period]) -> None:
        for period in periods:
            period.predictions += 1
            period.abstained += facts.reason is not None
            period.latency_us.append(facts.latency_us)
            period.brightness.add(facts.brightness)
        caller = self._callers[facts.caller]
        caller.predictions += 1
        caller.brightness.add(facts.brightness)
        if facts.reason is not None:
            caller.reasons[facts.reason] += 1
        span = self.versions.setdefault(facts.version, _Span(at, at))
        span.first_at, span.last_at = min(span.first_at, at), max(span.last_at, at)
        for name, value in facts.runtime.items():
            values = self._runtimes[name][at[:_DAY_LENGTH]]
            values[value] = min(values.get(value, at), at)

    def _add_move(self, facts: Mapping[str, Any]) -> None:
        # An interruption may have recorded it twice.
        self.aliases += [change for change in _read_move(facts) if change not in self.aliases]

    def _add_verdict(self, facts: Mapping[str, Any]) -> None:
        details = facts[EntryKind.CANARY_VERDICT]
        model = str(facts["principal"]).removeprefix(MODEL_SUBJECT)
        parse_timestamp(facts["at"])  # checks it
        candidate, production = str(details["candidate"]), str(details["production"])
        verdict = CandidateVerdict(facts["at"], model, candidate, production, judge.Verdict(details["verdict"]))
        if verdict not in self.verdicts:  # an interruption may have recorded it twice
            self.verdicts.append(verdict)

    def list_months(self) -> list[PeriodTraffic]:
        return [_make_period(name, month) for name, month in self._months.items()]

    def list_weeks(self) -> list[PeriodTraffic]:
        return [_make_period(name, week) for name, week in self._weeks.items()]

    def list_callers(self, names: Mapping[str, str]) -> list[CallerTraffic]:
        """Return the callers by their number of predictions, the most first."""
        callers = [
            CallerTraffic(
                names.get(subject, subject),
                caller.predictions,
                caller.reasons[AbstentionReason.NOT_AERIAL],
                caller.reasons[AbstentionReason.LOW_CONFIDENCE],
                caller.brightness.value,
            )
            for subject, caller in self._callers.items()
        ]
        return sorted(callers, key=lambda caller: -caller.predictions)

    def list_errors(self) -> list[ErrorCount]:
        return [ErrorCount(status, code, count) for (status, code), count in self._errors.most_common()]

    def list_incidents(self) -> list[Incident]:
        """Return the days with at least _INCIDENT_MIN_ERRORS server errors for more than INCIDENT_SHARE of requests."""
        return [
            Incident(day, "server_errors", "", counts["server_errors"], counts["requests"])
            for day, counts in sorted(self._days.items())
            if counts["server_errors"] >= _INCIDENT_MIN_ERRORS
            and counts["server_errors"] > INCIDENT_SHARE * counts["requests"]
        ]

    def list_runtime_changes(self, before: Mapping[str, Sequence[str]]) -> list[RuntimeChange]:
        """Return the changes of the runtime; see `find_runtime_before` for `before`."""
        changes = [find_runtime_changes(name, days, before.get(name, ())) for name, days in self._runtimes.items()]
        return sorted(chain.from_iterable(changes), key=lambda change: change.at)


def read_quarter(connection: Connection, quarter: Quarter) -> tuple[QuarterFacts, int]:
    """Return the facts of a quarter, and how many entries no longer have a payload."""
    facts, erased, at = QuarterFacts(quarter), 0, ledger_entries.c.at
    own = _join().where(at >= format_timestamp(quarter.start), at < format_timestamp(quarter.end))
    for (document,) in connection.execution_options(yield_per=_CHUNK).execute(own):
        if document is None:
            erased += 1
        else:
            facts.add(document)
    return facts, erased


def find_runtime_before(connection: Connection, quarter: Quarter) -> Mapping[str, Sequence[str]]:
    """Return the values of each part of the runtime on the last active day before the quarter, newest first."""
    at, day, found = ledger_entries.c.at, "", defaultdict[str, dict[str, None]](dict)
    earlier = _join().where(at < format_timestamp(quarter.start)).order_by(at.desc())
    for (document,) in connection.execution_options(yield_per=_CHUNK).execute(earlier):
        with suppress(*_CHANGED):
            request = parse_json(document or "{}")
            if runtime := request.get("runtime"):
                day = day or request["at"][:_DAY_LENGTH]
                if not request["at"].startswith(day):
                    break
                for name, value in runtime.items():
                    found[name][str(value)] = None
    return {name: list(values) for name, values in found.items()}


def find_decided_before(connection: Connection, quarter: Quarter, models: Iterable[str]) -> set[str]:
    """Return the full names of the versions of these models to which an alias was moved before the quarter."""
    subjects = [sanitize_name(name_model_subject(model)) for model in models]
    earlier = ledger_entries.c.at < format_timestamp(quarter.start)
    decided = set[str]()
    for (document,) in connection.execute(_join().where(ledger_payloads.c.principal.in_(subjects), earlier)):
        with suppress(*_CHANGED):
            facts = parse_json(document)
            if facts["kind"] == EntryKind.ALIAS_MOVED:
                decided |= {change.version for change in _read_move(facts)}
    return decided


def _read_prediction(facts: Mapping[str, Any]) -> _PredictionFacts:
    model, reason = facts["model"], facts["output"].get("abstention", {}).get("reason")
    brightness = facts["image"].get("brightness")
    return _PredictionFacts(
        (str(model["name"]), str(model["version"])),
        str(facts["principal"]),
        None if reason is None else str(reason),
        None if brightness is None else read_number(brightness),
        sum(map(read_number, facts["timing_us"].values())),
        {name: str(value) for name, value in facts["runtime"].items()},
    )


def _read_move(facts: Mapping[str, Any]) -> list[AliasChange]:
    move = parse_move(facts[EntryKind.ALIAS_MOVED])
    model = str(facts["principal"]).removeprefix(MODEL_SUBJECT)
    return [
        AliasChange(move.at, model, alias, change.before, change.after, move.who, move.why)
        for alias, change in move.aliases.items()
    ]


def _join() -> Any:
    entries, payloads = ledger_entries.c, ledger_payloads.c
    same = (entries.writer == payloads.writer) & (entries.seq == payloads.seq)
    return select(payloads.document).select_from(ledger_entries.outerjoin(ledger_payloads, same))


def _make_period(name: str, period: _Period) -> PeriodTraffic:
    return PeriodTraffic(
        name,
        period.requests,
        period.predictions,
        period.abstained,
        period.client_errors,
        period.server_errors,
        _compute_percentiles(period.latency_us),
        period.brightness.value,
    )


@cache
def _find_monday(day: str) -> str:
    date = datetime.fromisoformat(day)
    return f"{date - timedelta(days=date.weekday()):%Y-%m-%d}"


def _compute_percentiles(latency_us: Sequence[float]) -> Mapping[int, float] | None:
    if not len(latency_us):
        return None
    values = np.percentile(np.asarray(latency_us), PERCENTILES) / 1000
    return dict(zip(PERCENTILES, values.tolist(), strict=True))
