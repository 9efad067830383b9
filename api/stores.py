"""Other rooms' stores on the auth room's transactions: the rooms do not know each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.database import reading, writing
from auth.errors import DatabaseUnavailable
from monitoring.audit.store import AuditStore, Transaction
from monitoring.errors import AuditUnavailable


def audit_store(engine: AsyncEngine) -> AuditStore:
    """The record of access in the database of users, in transactions of its own."""
    return AuditStore(_for_audit(engine, reading), _for_audit(engine, writing))


def _for_audit(
    engine: AsyncEngine, opened: Callable[[AsyncEngine], AbstractAsyncContextManager[AsyncConnection]]
) -> Transaction:
    @asynccontextmanager
    async def transaction() -> AsyncIterator[AsyncConnection]:
        try:
            async with opened(engine) as connection:
                yield connection
        except DatabaseUnavailable as error:
            raise AuditUnavailable from error

    return transaction
