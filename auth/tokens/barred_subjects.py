"""Users of external issuers whom an administrator has barred from this gateway, whatever tokens they have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Row, delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.changes import announce
from auth.errors import SubjectNotBarred
from auth.tables import barred_subjects, changes
from auth.tokens.digests import hash_text
from storage.engine import dialect_insert
from storage.transactions import Record, reading, record_nothing, writing

# Every process reads the barred subjects from the feed of changes, which keeps a change until it expires.
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
# How long the change that unbars a user is kept. A process that misses it rejects the user until it restarts.
_ANNOUNCED = timedelta(days=30)


class BarredSubject(Struct, frozen=True):
    """A user, identified by the claims `iss` and `sub` of the tokens, and since when the user is barred (UTC)."""

    issuer: str
    subject: str
    barred_at: datetime


class BarredSubjects:
    """Stores the barred users. Every method raises DatabaseUnavailable.

    Methods that change something call `record` in the same transaction.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def bar(self, issuer: str, subject: str, *, record: Record[BarredSubject] = record_nothing) -> BarredSubject:
        """Bar a user; every process rejects the user's tokens within a second. Repeated calls keep the first time."""
        values = {"issuer": issuer, "subject": subject, "barred_at": datetime.now(UTC)}
        async with writing(self._engine) as connection:
            insert = dialect_insert(barred_subjects, connection.dialect).values(**values).on_conflict_do_nothing()
            if (await connection.execute(insert)).rowcount:
                await announce(connection, subject_target(issuer, subject), revoked=True, expires_at=_NEVER)
            row = (await connection.execute(select(barred_subjects).where(*_match(issuer, subject)))).one()
            await record(connection, _barred(row))
        return _barred(row)

    async def unbar(self, issuer: str, subject: str, *, record: Record[None] = record_nothing) -> None:
        """Stop barring a user. Raises SubjectNotBarred."""
        target = subject_target(issuer, subject)
        async with writing(self._engine) as connection:
            removed = await connection.execute(delete(barred_subjects).where(*_match(issuer, subject)))
            if removed.rowcount == 0:
                raise SubjectNotBarred("This user is not barred. `atalaya users barred` lists the barred users.")
            await connection.execute(delete(changes).where(changes.c.target == target))
            await announce(connection, target, revoked=False, expires_at=datetime.now(UTC) + _ANNOUNCED)
            await record(connection, None)

    async def list(self) -> Sequence[BarredSubject]:
        """Return the barred users, by issuer and subject."""
        statement = select(barred_subjects).order_by(barred_subjects.c.issuer, barred_subjects.c.subject)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(statement)).all()
        return [_barred(row) for row in rows]


def subject_target(issuer: str, subject: str) -> str:
    """Return the target of changes that concern a user of an external issuer: a digest, because ids can be long."""
    return f"subject:{hash_text(f'{issuer}|{subject}')}"


def _barred(row: Row[Any]) -> BarredSubject:
    return BarredSubject(row.issuer, row.subject, row.barred_at)


def _match(issuer: str, subject: str) -> tuple[ColumnElement[bool], ...]:
    return barred_subjects.c.issuer == issuer, barred_subjects.c.subject == subject
