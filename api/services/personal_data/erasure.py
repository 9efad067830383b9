"""Erasing what is stored of a user: payloads of the ledger, addresses in the audit log, and kept images."""

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
from storage.images.archive import ImageArchive
from storage.images.errors import ImageStoreError
from storage.logins import DatabaseLogin
from storage.transactions import WRITING

IN_FLIGHT_S = 2.0
"""By then every process knows that the user is gone, and what was being recorded of the user's requests is recorded."""

LOCK_TIMEOUT_S = 10  # beside workers that write

log = structlog.get_logger("atalaya.erasure")


class RecordErasure:
    """Erases in short transactions, beside the requests."""

    def __init__(
        self, settings: Settings, audit_log: AuditStore, login: DatabaseLogin, images: ImageArchive | None
    ) -> None:
        self._url = settings.database_url.get_secret_value()
        self._login = login
        self._audit_log = audit_log
        self._images = images
        self._signer = Signer(settings.ledger_key()) if settings.ledger.signing_key is not None else None

    def use_signer(self, signer: Signer) -> None:
        self._signer = signer

    async def erase(self, user_id: str, actor: str) -> None:
        """Erase the records of a user who was just deleted. A failure is logged, with the command that repeats it."""
        await self.erase_images(user_id)
        try:
            predictions = await asyncio.to_thread(self._erase_predictions, user_id)
            entries = await self._audit_log.erase(user_id, actor)
        except MonitoringError as error:
            log.error("user_not_erased", user=user_id, code=error.code, retry=f"atalaya users delete {user_id}")
        else:
            log.info("user_erased", user=user_id, predictions=predictions, audit_entries=entries)

    async def erase_images(self, user_id: str) -> None:
        """Erase the images of a user who no longer allows them to be kept, once every process knows that.

        After a failure the next hourly upkeep erases them.
        """
        await asyncio.sleep(IN_FLIGHT_S)
        if self._images is None:
            return
        try:
            images = await asyncio.to_thread(self._images.erase, user_id)
        except ImageStoreError as error:
            log.error("images_not_erased", user=user_id, code=error.code, policy="the hourly upkeep erases them")
        except Exception:  # the rest of the user's data must be erased nevertheless
            log.exception("images_not_erased", user=user_id, policy="the hourly upkeep erases them")
        else:
            log.info("images_erased", user=user_id, images=images)

    def _erase_predictions(self, user_id: str) -> int:
        if self._signer is None:
            return 0
        engine = open_blocking_engine(self._url, LOCK_TIMEOUT_S, self._login)
        try:
            return sum(Eraser(engine.execution_options(**WRITING), self._signer, datetime.now(UTC)).erase(user_id))
        finally:
            engine.dispose()
