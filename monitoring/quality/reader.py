"""Reads labels and sums over the confidence, by model version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine, func, select
from sqlalchemy.sql.elements import ColumnElement

from monitoring.chains.timestamps import format_timestamp, get_hour
from monitoring.ledger.entries import sanitize_name
from monitoring.ledger.tables import is_superseded, ledger_heads, ledger_labels, prediction_sums
from monitoring.ledger.transactions import ledger_errors

_CHUNK = 1000


class PredictionSums(NamedTuple):
    """Sums over the predictions of a version. All but `abstained` leave out those on which the model abstained."""

    model: str
    version: str
    predictions: int
    confidence: float
    variance: float
    abstained: int


class CurrentLabel(NamedTuple):
    """The newest label of a prediction on which the model did not abstain, and what it predicted."""

    version: str
    predicted: str
    confidence: float
    label: str


class QualityReader:
    """Every method raises LedgerUnavailable. Includes only predictions made from `since` on and before `until`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list_sums(
        self, since: datetime | None, model: str | None = None, until: datetime | None = None
    ) -> Sequence[PredictionSums]:
        """Return the sums of each version, of all models or one, from the hour of `since` to before that of `until`."""
        columns = prediction_sums.c
        totals = (func.sum(columns[name]) for name in ("predictions", "confidence", "variance", "abstained"))
        statement = select(columns.model, columns.version, *totals).group_by(columns.model, columns.version)
        if model is not None:
            statement = statement.where(columns.model == sanitize_name(model))
        if since is not None:
            statement = statement.where(columns.hour >= get_hour(format_timestamp(since)))
        if until is not None:
            statement = statement.where(columns.hour < get_hour(format_timestamp(until)))
        with ledger_errors(self._engine.url), self._engine.begin() as connection:
            # PostgreSQL's sums of integers are decimals.
            return [
                PredictionSums(row[0], row[1], int(row[2]), row[3], row[4], int(row[5]))
                for row in connection.execute(statement.order_by(columns.model, columns.version))
            ]

    def iterate_labels(
        self, since: datetime | None, model: str, version: str | None = None, until: datetime | None = None
    ) -> Iterator[CurrentLabel]:
        """Yield the newest label of each labelled prediction of a model, or of one of its versions.

        Reads them in chunks, because there may be millions.
        """
        columns = ledger_labels.c
        statement = select(columns.version, columns.predicted, columns.confidence, columns.label)
        statement = statement.where(columns.model == sanitize_name(model), *_current(since))
        if until is not None:
            statement = statement.where(columns.predicted_at < format_timestamp(until))
        if version is not None:
            statement = statement.where(columns.version == sanitize_name(version))
        with ledger_errors(self._engine.url), self._engine.begin() as connection:
            for row in connection.execution_options(yield_per=_CHUNK).execute(statement):
                yield CurrentLabel(*row)

    def find_label_ends(self) -> frozenset[tuple[str, int]]:
        """Return writer and number of the last label in each chain. The result changes when a label is added."""
        heads, labels = ledger_heads.c, ledger_labels.c
        last = select(func.max(labels.seq)).where(labels.writer == heads.writer).scalar_subquery()
        with ledger_errors(self._engine.url), self._engine.begin() as connection:
            ends = connection.execute(select(heads.writer, last))
            return frozenset((writer, seq) for writer, seq in ends if seq is not None)

    def count_labels(self, since: datetime, model: str, version: str) -> tuple[int, int]:
        """Return how many predictions of a version are labelled, and how many of them are correct."""
        columns = ledger_labels.c
        own = columns.model == sanitize_name(model), columns.version == sanitize_name(version)
        is_correct = columns.predicted == columns.label
        statement = select(is_correct, func.count()).where(*own, *_current(since)).group_by(is_correct)
        with ledger_errors(self._engine.url), self._engine.begin() as connection:
            counts = {bool(row[0]): row[1] for row in connection.execute(statement)}
        return sum(counts.values()), counts.get(True, 0)


def _current(since: datetime | None) -> Sequence[ColumnElement[bool]]:
    """Return the conditions for the newest label of each prediction made since then without abstaining."""
    columns = ledger_labels.c
    conditions = [columns.abstained == 0, ~is_superseded()]
    if since is not None:
        conditions.append(columns.predicted_at >= format_timestamp(since))
    return conditions
