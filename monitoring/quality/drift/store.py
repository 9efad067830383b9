"""Reads and writes the states and findings of drift, in transactions of the caller."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Connection, Select, Table, bindparam, delete, func, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from monitoring.quality.drift.tables import drift_findings, drift_states
from storage.engine import dialect_insert

ALL = ""
"""The name of the caller for all callers together."""
OTHERS = "(others)"
"""The name of the caller for all callers beyond the limit."""
_MAX_FINDINGS = 1000

Key = tuple[str, str]
"""Model and caller."""


class StoredState(Struct, frozen=True):
    """`state` is text that the detector of the model with that digest reads, empty before the first prediction.

    `seen_at` is the time of the last prediction.
    """

    model: str
    caller: str
    digest: str
    predictions: int
    seen_at: str
    state: str


class DriftFinding(Struct, frozen=True):
    """A metric of a caller that differed from the reference: since when, when that was found, and when it ended.

    `change` says how. `reference` and `recent` are the means of the metric when it was last found to differ.
    """

    model: str
    caller: str
    metric: str
    found_at: str
    since: str
    change: str
    reference: float | None
    recent: float | None
    ended_at: str | None = None


class FindingEnd(Struct, frozen=True):
    """The end of the ongoing finding of a metric."""

    model: str
    caller: str
    metric: str
    at: str


class DriftStore:
    """Reads and writes rows in one transaction. To write on SQLite, it must have begun with WRITING."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list_known(self, keys: Collection[Key]) -> set[Key]:
        """Return which of the keys have a state."""
        columns = drift_states.c
        rows = self._connection.execute(select(columns.model, columns.caller).where(_is_one_of(keys)))
        return {(row.model, row.caller) for row in rows}

    def read(self, keys: Collection[Key]) -> Mapping[Key, StoredState]:
        """Return the states of the keys, without locking them or creating missing ones."""
        return {key: _begin_state(key) for key in keys} | self._select_states(
            select(drift_states).where(_is_one_of(keys))
        )

    def lock(self, keys: Collection[Key]) -> Mapping[Key, StoredState]:
        """Lock and return the states of the keys, creating missing ones.

        All processes lock them in the same order, so that they cannot deadlock.
        """
        new = [asdict(_begin_state(key)) for key in sorted(keys)]
        insertion = dialect_insert(drift_states, self._connection.dialect).on_conflict_do_nothing()
        ordered = select(drift_states).where(_is_one_of(keys)).order_by(drift_states.c.model, drift_states.c.caller)
        states: Mapping[Key, StoredState] = {}
        while len(states) < len(keys):  # again if `remove_unseen` deleted a row that the insertion found
            self._connection.execute(insertion, new)
            states = self._select_states(ordered.with_for_update())
        return states

    def save(self, states: Sequence[StoredState]) -> None:
        """Update states that are locked."""
        rows = [
            {
                "own_model": each.model,
                "own_caller": each.caller,
                # The new values of the columns with these names.
                "digest": each.digest,
                "predictions": each.predictions,
                "seen_at": each.seen_at,
                "state": each.state,
            }
            for each in states
        ]
        self._connection.execute(update(drift_states).where(*_is_own(drift_states)), rows)

    def begin_findings(self, findings: Sequence[DriftFinding]) -> None:
        insertion = dialect_insert(drift_findings, self._connection.dialect).on_conflict_do_nothing()
        self._connection.execute(insertion, [asdict(each) for each in findings])

    def repeat_findings(self, findings: Sequence[DriftFinding]) -> None:
        """Update the changes and the means of ongoing findings, but not their times."""
        rows = [
            {
                "own_model": each.model,
                "own_caller": each.caller,
                "own_metric": each.metric,
                "change": each.change,
                "reference": each.reference,
                "recent": each.recent,
            }
            for each in findings
        ]
        self._connection.execute(update(drift_findings).where(*_is_ongoing_metric()), rows)

    def end_findings(self, ends: Sequence[FindingEnd]) -> None:
        rows = [
            {"own_model": each.model, "own_caller": each.caller, "own_metric": each.metric, "ended_at": each.at}
            for each in ends
        ]
        self._connection.execute(update(drift_findings).where(*_is_ongoing_metric()), rows)

    def end_all_findings(self, times: Mapping[Key, str]) -> None:
        """End the ongoing findings of all metrics of each key, at its time."""
        rows = [{"own_model": model, "own_caller": caller, "ended_at": at} for (model, caller), at in times.items()]
        self._connection.execute(update(drift_findings).where(*_is_ongoing()), rows)

    def list_states(self, caller: str) -> Sequence[StoredState]:
        """Return the states of a caller, one for each model."""
        chosen = select(drift_states).where(drift_states.c.caller == caller).order_by(drift_states.c.model)
        return [StoredState(*row) for row in self._connection.execute(chosen)]

    def count_callers(self, model: str) -> int:
        """Return how many callers of a model have a state of their own."""
        columns = drift_states.c
        own = columns.model == model, columns.caller.not_in([ALL, OTHERS])
        return self._connection.execute(select(func.count()).select_from(drift_states).where(*own)).scalar_one()

    def list_ongoing(self, seen_since: str) -> Sequence[DriftFinding]:
        """Return the ongoing findings of callers seen since then, first those of ALL, then by time; at most 1,000."""
        findings = drift_findings.c
        chosen = _select_ongoing(seen_since, *findings)
        chosen = chosen.order_by(findings.caller != ALL, findings.since, findings.caller, findings.metric)
        return [DriftFinding(*row) for row in self._connection.execute(chosen.limit(_MAX_FINDINGS))]

    def count_ongoing(self, seen_since: str) -> Mapping[tuple[str, str], int]:
        """Return for each model and metric how many callers, not counting ALL, have an ongoing finding."""
        findings = drift_findings.c
        counted = _select_ongoing(seen_since, findings.model, findings.metric, func.count())
        counted = counted.where(findings.caller != ALL).group_by(findings.model, findings.metric)
        return {(model, metric): count for model, metric, count in self._connection.execute(counted)}

    def remove_unseen(self, before: str) -> None:
        """Remove the states of callers that were last seen before that time, and end their ongoing findings."""
        columns = drift_states.c
        # Locked in the order of `lock`. An update that waits for these rows then finds them gone, and creates new ones.
        old = select(columns.model, columns.caller).where(columns.seen_at < before)
        old = old.order_by(columns.model, columns.caller).with_for_update()
        keys = [{"own_model": model, "own_caller": caller} for model, caller in self._connection.execute(old)]
        if keys:
            self._connection.execute(delete(drift_states).where(*_is_own(drift_states)), keys)
            self._connection.execute(update(drift_findings).where(*_is_ongoing()).values(ended_at=before), keys)

    def remove_ended(self, before: str) -> None:
        """Remove the findings that ended before that time."""
        self._connection.execute(delete(drift_findings).where(drift_findings.c.ended_at < before))

    def _select_states(self, statement: Select[Any]) -> dict[Key, StoredState]:
        return {(row.model, row.caller): StoredState(*row) for row in self._connection.execute(statement)}


def _begin_state(key: Key) -> StoredState:
    return StoredState(*key, digest="", predictions=0, seen_at="", state="")


def _select_ongoing(seen_since: str, *columns: ColumnElement[Any]) -> Select[Any]:
    """Return a query of the ongoing findings of callers seen since then."""
    findings, states = drift_findings.c, drift_states.c
    same = (findings.model == states.model) & (findings.caller == states.caller)
    chosen = select(*columns).join_from(drift_findings, drift_states, same)
    return chosen.where(findings.ended_at.is_(None), states.seen_at >= seen_since)


def _is_own(table: Table) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that a row has the key in the parameters `own_model` and `own_caller`."""
    return table.c.model == bindparam("own_model"), table.c.caller == bindparam("own_caller")


def _is_ongoing() -> tuple[ColumnElement[bool], ...]:
    """Return the condition that a finding is ongoing and has the key in the parameters."""
    return *_is_own(drift_findings), drift_findings.c.ended_at.is_(None)


def _is_ongoing_metric() -> tuple[ColumnElement[bool], ...]:
    """Return the condition of `_is_ongoing` for the metric in the parameter `own_metric`."""
    return *_is_ongoing(), drift_findings.c.metric == bindparam("own_metric")


def _is_one_of(keys: Collection[Key]) -> ColumnElement[bool]:
    return tuple_(drift_states.c.model, drift_states.c.caller).in_(sorted(keys))


def erase_caller(connection: Connection, caller: str) -> None:
    """Remove everything that is stored about a caller."""
    for table in (drift_states, drift_findings):
        connection.execute(delete(table).where(table.c.caller == caller))
