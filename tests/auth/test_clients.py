"""OAuth clients, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.changes import ChangeFeed
from auth.clients import ClientStore
from auth.errors import ClientExists, ClientNotFound, InvalidClient
from auth.principal import Scope


@pytest.fixture
def store(engine: AsyncEngine) -> ClientStore:
    return ClientStore(engine)


async def test_a_client_logs_in_with_its_secret(store: ClientStore) -> None:
    """A client's id and secret authenticate it, with the scopes it was added with."""
    client, secret = await store.add("maps", {Scope.PREDICT})
    assert await store.authenticate(client.id, secret) == client
    assert await store.list() == [client]


@pytest.mark.parametrize("secret", ["", "wrong", "\ud800", "x" * 9000])
async def test_a_wrong_secret_is_rejected(store: ClientStore, secret: str) -> None:
    """A wrong secret raises InvalidClient, whatever characters it contains."""
    client, _ = await store.add("maps", {Scope.PREDICT})
    with pytest.raises(InvalidClient):
        await store.authenticate(client.id, secret)


@pytest.mark.parametrize("client_id", ["", "maps", "\x00", "0" * 36, "'; DROP TABLE clients; --"])
async def test_an_unknown_client_is_rejected_like_a_wrong_secret(store: ClientStore, client_id: str) -> None:
    """An unknown id raises InvalidClient, as a wrong secret does."""
    with pytest.raises(InvalidClient):
        await store.authenticate(client_id, "")


async def test_a_disabled_client_is_revoked_at_once(engine: AsyncEngine, store: ClientStore) -> None:
    """A disabled client cannot log in, and its tokens are revoked."""
    client, secret = await store.add("maps", {Scope.PREDICT})
    feed = ChangeFeed(engine)
    assert (await store.disable("maps")).disabled_at is not None
    with pytest.raises(InvalidClient):
        await store.authenticate(client.id, secret)
    await feed.catch_up()
    assert feed.is_revoked(f"client:{client.id}")


async def test_an_enabled_client_can_log_in_again(engine: AsyncEngine, store: ClientStore) -> None:
    """Enabling ends the revocation in every process, and the client logs in with its secret."""
    client, secret = await store.add("maps", {Scope.PREDICT})
    feed = ChangeFeed(engine)
    first = await store.disable("maps")
    assert await store.disable("maps") == first
    await feed.catch_up()
    assert (await store.enable("maps")).disabled_at is None
    await feed.catch_up()
    assert not feed.is_revoked(f"client:{client.id}")
    assert (await store.authenticate(client.id, secret)).name == "maps"


async def test_a_rotated_secret_replaces_the_old_one(store: ClientStore) -> None:
    """After a rotation only the new secret is accepted, and a disabled client stays disabled."""
    client, old = await store.add("maps", {Scope.PREDICT})
    _, new = await store.rotate_secret("maps")
    with pytest.raises(InvalidClient):
        await store.authenticate(client.id, old)
    assert (await store.authenticate(client.id, new)).id == client.id
    await store.disable("maps")
    assert (await store.rotate_secret("maps"))[0].disabled_at is not None


async def test_a_deleted_client_is_revoked(engine: AsyncEngine, store: ClientStore) -> None:
    """A deleted client cannot log in, its tokens are revoked, and its name is free for another client."""
    client, secret = await store.add("maps", {Scope.PREDICT})
    feed = ChangeFeed(engine)
    assert await store.delete("maps") == client
    with pytest.raises(InvalidClient):
        await store.authenticate(client.id, secret)
    await feed.catch_up()
    assert feed.is_revoked(f"client:{client.id}")
    assert (await store.add("maps", {Scope.PREDICT}))[0].id != client.id


@pytest.mark.parametrize("change", ["enable", "delete", "rotate_secret"])
async def test_an_unknown_client_cannot_be_changed(store: ClientStore, change: str) -> None:
    """Every change of an unknown client raises ClientNotFound."""
    with pytest.raises(ClientNotFound, match="nobody"):
        await getattr(store, change)("nobody")


async def test_client_names_are_unique(store: ClientStore) -> None:
    """Adding a second client of the same name and disabling an unknown client fail."""
    await store.add("maps", {Scope.PREDICT})
    with pytest.raises(ClientExists):
        await store.add("maps", {Scope.PREDICT})
    with pytest.raises(ClientNotFound):
        await store.disable("nobody")


async def test_the_secret_is_not_stored(engine: AsyncEngine, store: ClientStore) -> None:
    """The database does not contain the secret."""
    _, secret = await store.add("maps", {Scope.PREDICT})
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT * FROM clients"))).one()
    assert secret not in " ".join(map(str, row))
