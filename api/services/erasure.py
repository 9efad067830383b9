"""Erasing what the records hold of a deleted user: payloads of the ledger, and addresses in the audit log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from api.settings import Settings
from monitoring.audit.store import AuditStore
from monitoring.chains.signing import Signer
from monitoring.errors import MonitoringError
from monitoring.ledger.upkeep.erasure import Eraser
from storage.engine import open_blocking_engine
from storage.logins import DatabaseLogin
from storage.transactions import WRITING

IN_FLIGHT_S = 2.0
"""By then every process knows that the user is gone, and what was being recorded of the user's requests is recorded."""

LOCK_TIMEOUT_S = 10  # beside workers that write

log = structlog.get_logger("atalaya.erasure")


class RecordErasure:
    """Erases in short transactions, beside the requests."""

    def __init__(self, settings: Settings, audit_log: AuditStore, login: DatabaseLogin) -> None:
        self._url = settings.database_url.get_secret_value()
        self._login = login
        self._audit_log = audit_log
        self._signer = Signer(settings.ledger_key()) if settings.ledger.signing_key is not None else None

    def use_signer(self, signer: Signer) -> None:
        self._signer = signer

    async def erase(self, user_id: str, actor: str) -> None:
        """Erase the records of a user who was just deleted. A failure is logged, with the command that repeats it."""
        await asyncio.sleep(IN_FLIGHT_S)
        try:
            predictions = await asyncio.to_thread(self._erase_predictions, user_id)
            entries = await self._audit_log.erase(user_id, actor)
        except MonitoringError as error:
            log.error("user_not_erased", user=user_id, code=error.code, retry=f"atalaya users delete {user_id}")
        else:
            log.info("user_erased", user=user_id, predictions=predictions, audit_entries=entries)

    def _erase_predictions(self, user_id: str) -> int:
        if self._signer is None:
            return 0
        engine = open_blocking_engine(self._url, LOCK_TIMEOUT_S, self._login)
        try:
            return sum(Eraser(engine.execution_options(**WRITING), self._signer, datetime.now(UTC)).erase(user_id))
        finally:
            engine.dispose()
