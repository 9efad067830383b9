"""When users gave permission to keep their images, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import column, insert, table

import auth
from auth.accounts.store import UserChange, UserStore
from auth.principal import Role
from auth.tables import UTCDateTime
from storage.engine import open_engine
from storage.migrations import migrate, upgrade

CREATED = datetime(2026, 11, 1, tzinfo=UTC)
# The columns before migration 0008.
_COLUMNS = ("id", "name", "role", "password_hash", "keep_images")
_USERS = table("users", *map(column, _COLUMNS), column("created_at", UTCDateTime))


async def test_permissions_of_an_earlier_database(database_url: str) -> None:
    """Migration 0008 dates an existing permission from the user's creation, and gives none to other users."""
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, auth.MIGRATIONS, "0007")
        for user_id, keeps in (("ana", 1), ("bob", 0)):
            row = {"id": user_id, "name": user_id, "role": "client", "password_hash": "$h", "created_at": CREATED}
            await connection.execute(insert(_USERS).values(**row, keep_images=keeps))
    await migrate(engine, auth.MIGRATIONS)
    users = UserStore(engine)
    assert await users.list_image_permissions() == {"ana": CREATED}
    assert [(user.name, user.keep_images) for user in await users.list()] == [("ana", True), ("bob", False)]
    await engine.dispose()


async def test_a_new_permission_begins_anew(database_url: str) -> None:
    """Giving a permission twice keeps the first time; giving it again after a withdrawal sets a later time."""
    engine = open_engine(database_url)
    await migrate(engine, auth.MIGRATIONS)
    users = UserStore(engine)
    ana = await users.add("ana", Role.CLIENT, "$h")
    first, second = [await users.change(ana.id, UserChange(keep_images=True)) for _ in range(2)]
    assert first.images_allowed_since == second.images_allowed_since
    await users.change(ana.id, UserChange(keep_images=False))
    assert await users.find_image_permission(ana.id) is None
    again = await users.change(ana.id, UserChange(keep_images=True))
    assert first.images_allowed_since is not None
    assert again.images_allowed_since is not None
    assert again.images_allowed_since > first.images_allowed_since
    await engine.dispose()
