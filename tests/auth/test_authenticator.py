"""Credentials that were verified before are known again, until something changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.authenticator import CACHE_SIZE, Authenticator, VerifiedCredential
from auth.changes import ChangeFeed, announce
from auth.errors import InvalidToken
from auth.principal import Principal, Role, Scope
from storage.transactions import writing

HERE = "127.0.0.1"


@pytest.fixture(params=["sqlite"])
def database_url(tmp_path: Path) -> str:
    """What is tested here does not depend on the kind of database."""
    return f"sqlite:///{tmp_path}/users.db"


class Desk:
    """A verifier that counts how often it was asked, and a clock that stands still until it is moved."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.asked = 0
        self.now = 1000.0
        self.networks = ()
        self.feed = ChangeFeed(engine)
        self.authenticator = Authenticator([(lambda word: word != "none", self.verify)], self.feed, lambda: self.now)

    async def verify(self, credential: str) -> VerifiedCredential:
        self.asked += 1
        if credential == "bad":
            raise InvalidToken("Log in again.")
        principal = Principal(credential, credential, Role.CLIENT, frozenset({Scope.PREDICT}), None)
        return VerifiedCredential(principal, 1060.0, frozenset({f"key:{credential}"}), self.networks)

    async def change(self, target: str, *, revoked: bool) -> None:
        async with writing(self.engine) as connection:
            await announce(connection, target, revoked=revoked, expires_at=datetime.now(UTC) + timedelta(hours=1))
        await self.feed.catch_up()


@pytest.fixture
def desk(engine: AsyncEngine) -> Desk:
    return Desk(engine)


async def test_the_second_time_nobody_is_asked(desk: Desk) -> None:
    """A credential is verified once while it is valid, and again once it has expired."""
    for _ in range(3):
        assert (await desk.authenticator.authenticate("one", HERE)).subject == "one"
    assert desk.asked == 1
    desk.now = 1060.0
    await desk.authenticator.authenticate("one", HERE)
    assert desk.asked == 2


async def test_a_refusal_is_not_remembered(desk: Desk) -> None:
    """What was refused is verified each time."""
    for _ in range(2):
        with pytest.raises(InvalidToken):
            await desk.authenticator.authenticate("bad", HERE)
    assert desk.asked == 2


async def test_a_change_makes_it_ask_again(desk: Desk) -> None:
    """A change of what a credential names is seen at its next use; another's change is not."""
    await desk.authenticator.authenticate("one", HERE)
    await desk.change("key:two", revoked=False)
    await desk.authenticator.authenticate("one", HERE)
    assert desk.asked == 1
    await desk.change("key:one", revoked=False)
    await desk.authenticator.authenticate("one", HERE)
    assert desk.asked == 2


async def test_a_revocation_ends_it(desk: Desk) -> None:
    """A revoked credential is refused although its verifier would take it."""
    await desk.authenticator.authenticate("one", HERE)
    await desk.change("key:one", revoked=True)
    with pytest.raises(InvalidToken, match="revoked"):
        await desk.authenticator.authenticate("one", HERE)


async def test_a_change_during_verification_is_not_lost(desk: Desk) -> None:
    """What was read before a change is not remembered past it."""
    inner = desk.verify

    async def slow(credential: str) -> VerifiedCredential:
        verified = await inner(credential)
        await desk.change("key:one", revoked=False)
        return verified

    authenticator = Authenticator([(lambda _: True, slow)], desk.feed, lambda: desk.now)
    await authenticator.authenticate("one", HERE)
    await authenticator.authenticate("one", HERE)
    assert desk.asked == 2


async def test_a_credential_bound_to_networks_counts_from_there(desk: Desk) -> None:
    """The address is judged at each use, also from memory; what is no address is outside."""
    desk.networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    for address in ("10.1.2.3", "2001:db8::1"):
        assert (await desk.authenticator.authenticate("one", address)).subject == "one"
    for address in ("11.0.0.1", "::1", "unknown", ""):
        with pytest.raises(InvalidToken, match="from here"):
            await desk.authenticator.authenticate("one", address)
    assert desk.asked == 1


async def test_memory_is_bounded(desk: Desk) -> None:
    """Ever new credentials push the oldest out."""
    for index in range(CACHE_SIZE + 1):
        await desk.authenticator.authenticate(f"c{index}", HERE)
    asked = desk.asked
    await desk.authenticator.authenticate(f"c{CACHE_SIZE}", HERE)
    assert desk.asked == asked
    await desk.authenticator.authenticate("c0", HERE)
    assert desk.asked == asked + 1


async def test_a_credential_of_no_kind_is_refused(desk: Desk) -> None:
    """What no verifier calls its own is refused."""
    with pytest.raises(InvalidToken):
        await desk.authenticator.authenticate("none", HERE)
