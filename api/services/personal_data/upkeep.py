"""Erases records whose erasure failed or was interrupted, and images that may no longer be kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.personal_data.archive import compute_retention_cutoff
from api.services.personal_data.erasure import RecordErasure
from api.services.personal_data.store_thread import StoreThread
from api.settings import Settings
from auth.accounts.erasures import PendingErasures
from auth.accounts.store import UserStore
from auth.login.upkeep import CHECK_EVERY_S, FIRST_CHECK_S, Duty, claim_upkeep
from storage.errors import StorageError

log = structlog.get_logger("atalaya.images")


class RemovedImages(Struct, frozen=True):
    """The numbers of images removed because their owner does not allow them, and because they were old."""

    disallowed: int
    old: int


async def follow_image_upkeep(
    settings: Settings, engine: AsyncEngine, store: StoreThread, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Once an hour, remove images that may no longer be kept, unless another process does it; until cancelled."""
    await sleep(FIRST_CHECK_S)
    while True:
        try:
            if await claim_upkeep(engine, datetime.now(UTC), Duty.KEPT_IMAGES):
                removed = await remove_images(UserStore(engine), store, compute_retention_cutoff(settings))
                log.info("images_removed", disallowed=removed.disallowed, old=removed.old)
        except StorageError as error:
            log.warning("image_upkeep_postponed", code=error.code)
        except Exception:  # a bug must not end the upkeep forever
            log.exception("image_upkeep_failed")
        await sleep(CHECK_EVERY_S)


async def follow_erasures(
    erasure: RecordErasure, pending: PendingErasures, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Erase the records of deleted users again after their last requests have ended, until cancelled.

    An erasure that failed or was interrupted is repeated, too.
    """
    await sleep(FIRST_CHECK_S)
    while True:
        try:
            for user in await pending.remove_unfounded():
                log.error("erasure_rejected", user=user.user_id, actor=user.actor, reason="the user exists")
            for user in await pending.take_due(datetime.now(UTC)):
                await erasure.erase_records(user.user_id, user.actor)
        except StorageError as error:
            log.warning("erasures_postponed", code=error.code)
        except Exception:  # a bug must not end the upkeep forever
            log.exception("erasures_failed")
        await sleep(CHECK_EVERY_S)


async def remove_images(users: UserStore, store: StoreThread, retention_cutoff: datetime) -> RemovedImages:
    """Remove images that may no longer be kept. Raises DatabaseUnavailable, ImageStoreUnavailable.

    These are images past their retention, and images sent before their owner's current permission or without one, such
    as images that an erasure missed. Each owner's permission is read right before that owner's images are removed,
    because it may be given meanwhile.
    """
    disallowed = old = 0
    for owner in await store.run(store.archive.list_owners):
        now = datetime.now(UTC)
        allowed_since = await users.find_image_permission(owner) or now
        before = max(allowed_since, retention_cutoff)
        removed = await store.run(partial(store.archive.remove_old, owner, before))
        if before == retention_cutoff:
            old += removed
        else:
            disallowed += removed
    return RemovedImages(disallowed, old)
