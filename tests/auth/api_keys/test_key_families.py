"""Keys that were created with other keys, and revoking them together, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import UserStore
from auth.api_keys.store import ApiKey, KeyStore, KeyTerms
from auth.changes import ChangeFeed
from auth.errors import InvalidToken
from auth.principal import Role, Scope

TERMS = KeyTerms("maps", frozenset({Scope.KEYS_WRITE}), datetime.now(UTC) + timedelta(days=30))


@pytest.fixture
def keys(engine: AsyncEngine) -> KeyStore:
    return KeyStore(engine)


@pytest.fixture
async def owner(engine: AsyncEngine) -> str:
    return (await UserStore(engine).add("ana", Role.CLIENT, "hash")).id


async def list_active(keys: KeyStore) -> set[str]:
    return {key.id for key in await keys.list() if key.revoked_at is None}


async def make_family(keys: KeyStore, owner: str) -> tuple[ApiKey, list[ApiKey], ApiKey]:
    """Create a key, its descendants (two children, and a child of the first of them) and an unrelated key."""
    root, _ = await keys.create(owner, TERMS)
    child, _ = await keys.create(owner, TERMS, root.id)
    other_child, _ = await keys.create(owner, TERMS, root.id)
    grandchild, _ = await keys.create(owner, TERMS, child.id)
    unrelated, _ = await keys.create(owner, TERMS)
    return root, [child, other_child, grandchild], unrelated


async def test_a_key_names_the_key_that_created_it(keys: KeyStore, owner: str) -> None:
    """A key stores the id of the key that created it; a key that its owner created has no parent."""
    root, (child, _, grandchild), _ = await make_family(keys, owner)
    assert [key.parent_id for key in (root, child, grandchild)] == [None, root.id, child.id]
    assert await keys.get(grandchild.id) == grandchild


async def test_revoking_with_cascade_revokes_all_descendants(keys: KeyStore, owner: str, engine: AsyncEngine) -> None:
    """A cascade revokes the key and all its descendants, announces each of them, and leaves other keys alone."""
    root, descendants, unrelated = await make_family(keys, owner)
    feed = ChangeFeed(engine)
    revoked = await keys.revoke(root.id, cascade=True)
    assert revoked[0].id == root.id
    assert {key.id for key in revoked[1:]} == {key.id for key in descendants}
    assert all(key.revoked_at for key in revoked)
    assert await list_active(keys) == {unrelated.id}
    await feed.catch_up()
    assert all(feed.is_revoked(f"key:{key.id}") for key in revoked)
    assert not feed.is_revoked(f"key:{unrelated.id}")


async def test_revoking_alone_leaves_the_descendants(keys: KeyStore, owner: str) -> None:
    """Without a cascade only the key itself is revoked; a later cascade still finds its descendants."""
    root, descendants, unrelated = await make_family(keys, owner)
    assert [key.id for key in await keys.revoke(root.id)] == [root.id]
    assert await list_active(keys) == {unrelated.id, *(key.id for key in descendants)}
    await keys.revoke(root.id, cascade=True)
    assert await list_active(keys) == {unrelated.id}


async def test_a_cascade_passes_revoked_and_expired_keys(keys: KeyStore, owner: str) -> None:
    """A cascade also revokes the children of revoked and expired keys; a revoked key keeps its time of revocation."""
    root, (child, other_child, grandchild), _ = await make_family(keys, owner)
    expired, _ = await keys.create(owner, KeyTerms("old", TERMS.scopes, datetime.now(UTC)), other_child.id)
    below, _ = await keys.create(owner, TERMS, expired.id)
    (before,) = await keys.revoke(child.id)
    revoked = {key.id for key in await keys.revoke(root.id, cascade=True)}
    assert {grandchild.id, below.id} <= revoked
    assert child.id not in revoked
    assert (await keys.get(child.id)).revoked_at == before.revoked_at


async def test_a_revoked_key_creates_no_key(keys: KeyStore, owner: str) -> None:
    """A request that was authenticated before its key was revoked can create no key afterwards."""
    root, _ = await keys.create(owner, TERMS)
    await keys.revoke(root.id)
    with pytest.raises(InvalidToken):
        await keys.create(owner, TERMS, root.id)


async def test_no_key_escapes_a_concurrent_cascade(keys: KeyStore, owner: str) -> None:
    """A key that is created while its parent is being revoked is either revoked too or rejected."""
    root, _ = await keys.create(owner, TERMS)
    creations = [keys.create(owner, TERMS, root.id) for _ in range(10)]
    await asyncio.gather(*creations[:5], keys.revoke(root.id, cascade=True), *creations[5:], return_exceptions=True)
    assert await list_active(keys) == set()
