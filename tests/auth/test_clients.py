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
    """Id and secret authenticate the client, with the scopes it was added with."""
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


async def test_client_names_are_unique(store: ClientStore) -> None:
    """Adding a second client of a name and disabling an unknown client fail."""
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
