"""Evaluations of the served model in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins
from sqlalchemy import Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.quality.evaluations import EvaluationComparison, EvaluationRecord
from monitoring.quality.tables import evaluations
from storage.transactions import Record, reading, record_nothing, writing


class EvaluationStore:
    """Every method raises DatabaseUnavailable while the database is unavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, evaluation: EvaluationRecord, *, record: Record[None] = record_nothing) -> None:
        values: dict[str, Any] = to_builtins(evaluation)
        values |= values.pop("comparison") or {}
        async with writing(self._engine) as connection:
            await connection.execute(insert(evaluations).values(values))
            await record(connection, None)

    async def list(self, since: int = 0) -> Sequence[EvaluationRecord]:
        """Return the evaluations from that time on, in seconds since 1970, oldest first."""
        statement = select(evaluations).where(evaluations.c.at >= since).order_by(evaluations.c.id)
        async with reading(self._engine) as connection:
            return [_read(row) for row in await connection.execute(statement)]

    async def find_latest(self) -> EvaluationRecord | None:
        async with reading(self._engine) as connection:
            latest = select(evaluations).order_by(evaluations.c.id.desc()).limit(1)
            row = (await connection.execute(latest)).one_or_none()
        return None if row is None else _read(row)

    async def find_loss(self) -> EvaluationRecord | None:
        """Return the last loss of the last evaluated model, unless a later evaluation of the same images has no loss.

        An evaluation of other images does not end a loss.
        """
        columns = evaluations.c
        digest = select(columns.digest).order_by(columns.id.desc()).limit(1).scalar_subquery()
        newest = select(func.max(columns.id)).where(columns.digest == digest).group_by(columns.data_digest)
        losses = select(evaluations).where(columns.id.in_(newest), columns.is_loss)
        async with reading(self._engine) as connection:
            row = (await connection.execute(losses.order_by(columns.id.desc()).limit(1))).one_or_none()
        return None if row is None else _read(row)

    async def find_reference(self, data_digest: str) -> EvaluationRecord | None:
        """Return the last evaluation of these images that was not a loss, or None.

        A loss must not become the reference: otherwise the next evaluation of the same model would find nothing wrong.
        """
        columns = evaluations.c
        candidates = select(evaluations).where(columns.data_digest == data_digest, columns.is_loss.is_(False))
        async with reading(self._engine) as connection:
            row = (await connection.execute(candidates.order_by(columns.id.desc()).limit(1))).one_or_none()
        return None if row is None else _read(row)


def _read(row: Row[tuple[object, ...]]) -> EvaluationRecord:
    values = dict(row._mapping)
    compared = {name: values.pop(name) for name in EvaluationComparison.__struct_fields__}
    comparison = None if compared["reference"] is None else EvaluationComparison(**compared)
    return EvaluationRecord(**values, comparison=comparison)
