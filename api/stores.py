"""Other rooms' stores on the auth room's transactions: the rooms do not know each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.prediction.recording import QuotaTill
from api.settings import Settings
from storage.database import WRITING, file_of, open_blocking_engine, reading, writing
from auth.errors import DatabaseUnavailable
from auth.quotas.meter import UsageMeter
from monitoring.audit.store import AuditStore, Transaction
from monitoring.errors import AuditUnavailable, LedgerUnavailable
from monitoring.ledger.journal import Journal, SpoolPolicy
from monitoring.ledger.reader import LedgerReader
from monitoring.chains.signing import Signer
from monitoring.ledger.store import LedgerStore

LEDGER_WAIT_S = 1  # then the spool is better


def audit_store(engine: AsyncEngine) -> AuditStore:
    """The record of access in the database of users, in transactions of its own."""
    return AuditStore(_for_audit(engine, reading), _for_audit(engine, writing))


def ledger_journal(settings: Settings, meter: UsageMeter) -> Journal:
    """The prediction ledger, on a connection of its own to the same database. Raises SettingsError, BadLedgerKey."""
    url = settings.database_url.get_secret_value()
    engine = open_blocking_engine(url, LEDGER_WAIT_S)
    store = LedgerStore(engine.execution_options(**WRITING), Signer(settings.ledger_key()))
    spool = SpoolPolicy(settings.ledger.spool_folder, settings.ledger.spool_megabytes * 1_000_000, file_of(url))
    return Journal(store, QuotaTill(meter), spool, keep=settings.ledger.enabled)


def ledger_reader(engine: AsyncEngine) -> LedgerReader:
    """What the ledger holds, in transactions of its own."""
    return LedgerReader(partial(_for_ledger, engine))


@asynccontextmanager
async def _for_ledger(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with reading(engine) as connection:
            yield connection
    except DatabaseUnavailable as error:
        raise LedgerUnavailable from error


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
