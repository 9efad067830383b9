"""Opens the services that keep images, if the gateway has a store for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.personal_data.archive import open_image_archive
from api.services.personal_data.consents import ImageConsents
from api.services.personal_data.keeper import ImageKeeper
from api.services.personal_data.store_thread import StoreThread
from api.services.personal_data.upkeep import follow_image_upkeep
from api.settings import Settings
from auth.accounts.store import UserStore
from monitoring.metrics import Metrics


class ImageServices(Struct, frozen=True):
    """The caller must subscribe `consents` to the changes of users; see ImageConsents.subscribe_to."""

    store: StoreThread
    consents: ImageConsents
    keeper: ImageKeeper


@asynccontextmanager
async def open_image_services(
    settings: Settings, engine: AsyncEngine, metrics: Metrics, activity: Activity
) -> AsyncIterator[ImageServices | None]:
    """Yield the services, or None without a store. Raises SettingsError."""
    archive = open_image_archive(settings)
    if archive is None:
        yield None
        return
    store = StoreThread(archive)
    consents = ImageConsents(UserStore(engine).list_image_permissions)
    limit, processes = settings.images.megabytes * 1_000_000, settings.web_concurrency
    keeper = ImageKeeper(archive, consents.allows, limit, metrics, processes=processes)
    async with (
        run_in_background(consents.follow(activity.sleep)),
        run_in_background(follow_image_upkeep(settings, engine, store, activity.sleep)),
    ):
        try:
            yield ImageServices(store, consents, keeper)
        finally:
            store.close()
            await asyncio.to_thread(keeper.close)
