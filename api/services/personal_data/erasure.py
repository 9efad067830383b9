"""Erases what is stored about a user: payloads in the ledger, addresses in the audit log, and kept images."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from api.services.background import TaskSet
from api.services.personal_data.store_thread import StoreThread
from api.settings import Settings
from auth.accounts.erasures import PendingErasures
from monitoring.audit.store import AuditStore
from monitoring.chains.signing import Signer
from monitoring.errors import MonitoringError
from monitoring.ledger.upkeep.erasure import Eraser
from storage.engine import open_blocking_engine
from storage.errors import StorageError
from storage.images.errors import ImageStoreError
from storage.logins import DatabaseLogin
from storage.transactions import WRITING

IN_FLIGHT_S = 2.0
"""Within this time, every process has noticed the change, and most requests that it accepted before have ended."""

LOCK_TIMEOUT_S = 10  # while workers are writing
_HOURLY = "the hourly upkeep erases them"

log = structlog.get_logger("atalaya.erasure")


class RecordErasure:
    """Erases in short transactions, while the gateway serves requests. `close` ends what `start…` has started."""

    def __init__(
        self,
        settings: Settings,
        audit_log: AuditStore,
        pending: PendingErasures,
        login: DatabaseLogin,
        images: StoreThread | None,
    ) -> None:
        self._url = settings.database_url.get_secret_value()
        self._login = login
        self._audit_log = audit_log
        self._pending = pending
        self._images = images
        self._tasks = TaskSet()
        self.close = self._tasks.close
        self._signer = Signer(settings.ledger_key()) if settings.ledger.signing_key is not None else None

    def use_signer(self, signer: Signer) -> None:
        self._signer = signer

    def start(self, user_id: str, actor: str) -> None:
        """Call `erase` in a task, which continues after the response to the request."""
        self._tasks.start(self.erase(user_id, actor))

    def start_images(self, user_id: str) -> None:
        """Call `erase_images` in a task, which continues after the response to the request."""
        self._tasks.start(self.erase_images(user_id))

    async def erase(self, user_id: str, actor: str) -> None:
        """Erase the records and the images of a user who was just deleted.

        Images come last, because their store may be slow. follow_erasures repeats a failed or interrupted erasure of
        records, and follow_image_upkeep one of images.
        """
        await self.erase_records(user_id, actor)
        await self._erase_images(user_id)

    async def erase_records(self, user_id: str, actor: str) -> None:
        """Erase what the ledger and the audit log hold about a deleted user, and complete the pending erasure.

        It stays pending until requests that were running during the deletion have ended; then follow_erasures repeats
        this. If this fails, or the gateway stops first, the log names the command that repeats it.
        """
        retry = f"atalaya users delete {user_id}"
        try:
            await asyncio.sleep(IN_FLIGHT_S)
            began_at = datetime.now(UTC)
            entries = await self._audit_log.erase(user_id, actor)  # first: it can succeed with a damaged ledger
            predictions = await asyncio.to_thread(self._erase_predictions, user_id)
            await self._pending.complete(user_id, began_at)
        except (MonitoringError, StorageError) as error:
            log.error("user_not_erased", user=user_id, code=error.code, retry=retry)
        except asyncio.CancelledError:
            log.error("user_not_erased", user=user_id, reason="the gateway stops", retry=retry)
            raise
        except Exception:  # whatever a library raises
            log.exception("user_not_erased", user=user_id, retry=retry)
        else:
            log.info("user_erased", user=user_id, predictions=predictions, audit_entries=entries)

    async def erase_images(self, user_id: str) -> None:
        """Erase the images of a user who has withdrawn consent, after every process has noticed that.

        After a failure, the next hourly upkeep erases them.
        """
        if self._images is not None:
            await asyncio.sleep(IN_FLIGHT_S)
            await self._erase_images(user_id)

    async def _erase_images(self, user_id: str) -> None:
        if self._images is None:
            return
        try:
            images = await self._images.erase(user_id)
        except ImageStoreError as error:
            log.error("images_not_erased", user=user_id, code=error.code, policy=_HOURLY)
        except asyncio.CancelledError:
            log.error("images_not_erased", user=user_id, reason="the gateway stops", policy=_HOURLY)
            raise
        except Exception:  # whatever a library raises
            log.exception("images_not_erased", user=user_id, policy=_HOURLY)
        else:
            if images is not None:
                log.info("images_erased", user=user_id, images=images)

    def _erase_predictions(self, user_id: str) -> int:
        engine = open_blocking_engine(self._url, LOCK_TIMEOUT_S, self._login)
        try:
            return sum(Eraser(engine.execution_options(**WRITING), self._signer, datetime.now(UTC)).erase(user_id))
        finally:
            engine.dispose()
