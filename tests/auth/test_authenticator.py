"""Authenticating with credentials, and verifying them again only when necessary."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.authenticator import CACHE_SIZE, Authenticator, VerifiedCredential
from auth.changes import ChangeFeed, announce
from auth.errors import InvalidToken
from auth.networks import Network
from auth.principal import Principal, Role, Scope
from storage.transactions import writing

HERE = "127.0.0.1"


@pytest.fixture(params=["sqlite"])
def database_url(tmp_path: Path) -> str:
    """A SQLite database only: this module does not depend on the kind of database."""
    return f"sqlite:///{tmp_path}/users.db"


class CountingVerifier:
    """Accepts every credential but `unsupported` and verifies every one but `bad`; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.networks: tuple[Network, ...] = ()

    def accepts(self, credential: str) -> bool:
        return credential != "unsupported"

    async def verify(self, credential: str) -> VerifiedCredential:
        self.calls += 1
        if credential == "bad":
            raise InvalidToken("Log in again.")
        principal = Principal(credential, credential, Role.CLIENT, frozenset({Scope.PREDICT}), None)
        return VerifiedCredential(principal, 1060.0, frozenset({f"key:{credential}"}), self.networks)


class Gateway:
    """An authenticator with a counting verifier, a change feed, and a clock that the test moves."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.now = 1000.0
        self.verifier = CountingVerifier()
        self.feed = ChangeFeed(engine)
        verifiers = [(self.verifier.accepts, self.verifier.verify)]
        self.authenticator = Authenticator(verifiers, self.feed, lambda: self.now)

    async def authenticate(self, credential: str, address: str = HERE) -> Principal:
        return await self.authenticator.authenticate(credential, address)

    async def change(self, target: str, *, revoked: bool) -> None:
        async with writing(self.engine) as connection:
            await announce(connection, target, revoked=revoked, expires_at=datetime.now(UTC) + timedelta(hours=1))
        await self.feed.catch_up()


@pytest.fixture
def gateway(engine: AsyncEngine) -> Gateway:
    return Gateway(engine)


async def test_a_valid_credential_is_verified_once(gateway: Gateway) -> None:
    """A credential is verified once while it is valid, and again after it has expired."""
    for _ in range(3):
        assert (await gateway.authenticate("one")).subject == "one"
    assert gateway.verifier.calls == 1
    gateway.now = 1060.0
    await gateway.authenticate("one")
    assert gateway.verifier.calls == 2


async def test_a_failed_verification_is_not_cached(gateway: Gateway) -> None:
    """A rejected credential is verified each time."""
    for _ in range(2):
        with pytest.raises(InvalidToken):
            await gateway.authenticate("bad")
    assert gateway.verifier.calls == 2


async def test_a_change_causes_a_new_verification(gateway: Gateway) -> None:
    """A change of one of its targets causes a credential to be verified again at its next use; other changes do not."""
    await gateway.authenticate("one")
    await gateway.change("key:two", revoked=False)
    await gateway.authenticate("one")
    assert gateway.verifier.calls == 1
    await gateway.change("key:one", revoked=False)
    await gateway.authenticate("one")
    assert gateway.verifier.calls == 2


async def test_a_revoked_credential_is_rejected(gateway: Gateway) -> None:
    """A revoked credential is rejected even if its verifier accepts it."""
    await gateway.authenticate("one")
    await gateway.change("key:one", revoked=True)
    with pytest.raises(InvalidToken, match="revoked"):
        await gateway.authenticate("one")


async def test_a_result_read_before_a_change_is_not_cached(gateway: Gateway) -> None:
    """A change that arrives during a verification keeps its result out of the cache."""

    async def verify_slowly(credential: str) -> VerifiedCredential:
        verified = await gateway.verifier.verify(credential)
        await gateway.change("key:one", revoked=False)
        return verified

    authenticator = Authenticator([(lambda _: True, verify_slowly)], gateway.feed, lambda: gateway.now)
    await authenticator.authenticate("one", HERE)
    await authenticator.authenticate("one", HERE)
    assert gateway.verifier.calls == 2


async def test_a_revocation_during_a_verification_rejects_it(gateway: Gateway) -> None:
    """A credential that is revoked while it is being verified is rejected."""

    async def verify_slowly(credential: str) -> VerifiedCredential:
        verified = await gateway.verifier.verify(credential)
        await gateway.change("key:one", revoked=True)
        return verified

    authenticator = Authenticator([(lambda _: True, verify_slowly)], gateway.feed, lambda: gateway.now)
    with pytest.raises(InvalidToken, match="revoked"):
        await authenticator.authenticate("one", HERE)


async def test_a_credential_with_networks_is_accepted_from_them_only(gateway: Gateway) -> None:
    """The caller's address is checked at each use, cached or not; text that is not an address is rejected."""
    gateway.verifier.networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    for address in ("10.1.2.3", "2001:db8::1"):
        assert (await gateway.authenticate("one", address)).subject == "one"
    for address in ("11.0.0.1", "::1", "unknown", ""):
        with pytest.raises(InvalidToken, match="from this address"):
            await gateway.authenticate("one", address)
    assert gateway.verifier.calls == 1


async def test_the_cache_is_bounded(gateway: Gateway) -> None:
    """With more credentials than the cache holds, the least recently used one is verified again."""
    for index in range(CACHE_SIZE + 1):
        await gateway.authenticate(f"c{index}")
        await gateway.authenticate("c0")
    calls = gateway.verifier.calls
    await gateway.authenticate(f"c{CACHE_SIZE}")
    await gateway.authenticate("c0")
    assert gateway.verifier.calls == calls == CACHE_SIZE + 1
    await gateway.authenticate("c1")
    assert gateway.verifier.calls == calls + 1


async def test_an_unsupported_credential_is_rejected(gateway: Gateway) -> None:
    """A credential whose form no verifier accepts is rejected."""
    with pytest.raises(InvalidToken):
        await gateway.authenticate("unsupported")


async def test_every_credential_is_verified_again_on_request(gateway: Gateway) -> None:
    """After `verify_again`, for example because a signing key was removed, no cached result is used."""
    await gateway.authenticate("one")
    gateway.authenticator.verify_again()
    await gateway.authenticate("one")
    assert gateway.verifier.calls == 2
