"""Removing images that may not be kept any more: their owner has withdrawn or is gone, or their retention has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.personal_data.archive import find_end_of_retention
from api.settings import Settings
from auth.accounts.store import UserStore
from auth.login.upkeep import CHECK_EVERY_S, FIRST_CHECK_S, Duty, claim_upkeep
from storage.errors import StorageError
from storage.images.archive import ImageArchive, RemovedImages

log = structlog.get_logger("atalaya.images")


async def follow_image_upkeep(
    settings: Settings, engine: AsyncEngine, archive: ImageArchive, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Remove images once an hour, if no other process does, until cancelled."""
    await sleep(FIRST_CHECK_S)
    while True:
        try:
            if await claim_upkeep(engine, datetime.now(UTC), Duty.KEPT_IMAGES):
                removed = await remove_images(settings, engine, archive)
                log.info("images_removed", disallowed=removed.disallowed, old=removed.old)
        except StorageError as error:
            log.warning("image_upkeep_postponed", code=error.code)
        except Exception:  # a bug must not end the upkeep for ever
            log.exception("image_upkeep_failed")
        await sleep(CHECK_EVERY_S)


async def remove_images(settings: Settings, engine: AsyncEngine, archive: ImageArchive) -> RemovedImages:
    """Remove what may not be kept any more. Raises DatabaseUnavailable, ImageStoreUnavailable."""
    allowed = await UserStore(engine).list_keeping_images()
    return await asyncio.to_thread(archive.sweep, allowed, find_end_of_retention(settings))
