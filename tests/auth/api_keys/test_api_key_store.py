"""API keys, on both databases."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import UserChange, UserStore
from auth.api_keys.store import MAX_KEYS, OVERLAP, RECHECK_S, ApiKey, KeyStore, KeyTerms, is_api_key
from auth.authenticator import Authenticator
from auth.changes import ChangeFeed
from auth.errors import InvalidToken, KeyEnded, KeyNotFound, NoAccount, TooManyKeys
from auth.principal import Principal, Role, Scope
from auth.tables import users
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import writing

HERE = "127.0.0.1"
ID, SECRET = "0" * 16, "A" * 43
IN_A_MONTH = datetime.now(UTC) + timedelta(days=30)
TERMS = KeyTerms("maps", frozenset({Scope.PREDICT}), IN_A_MONTH)


class Desk:
    """A store, its owner `ana`, an authenticator over it, and a clock that goes on when it is told to."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.now = time.time()
        self.keys = KeyStore(engine, lambda: self.now)
        self.users = UserStore(engine)
        self.feed = ChangeFeed(engine)
        verifiers = [(is_api_key, self.keys.verify)]
        self.authenticator = Authenticator(verifiers, self.feed, lambda: self.now)

    @property
    def past(self) -> datetime:
        return datetime.fromtimestamp(self.now - 1, UTC)

    async def open(self) -> Desk:
        self.owner = (await self.users.add("ana", Role.CLIENT, "hash")).id
        return self

    async def create(self, **changes: Any) -> tuple[ApiKey, str]:
        return await self.keys.create(self.owner, replace(TERMS, **changes))

    async def disable_owner(self) -> None:
        await self.users.change(self.owner, UserChange(disabled=True))

    async def principal(self, key: str, address: str = HERE) -> Principal:
        await self.feed.catch_up()
        return await self.authenticator.authenticate(key, address)

    async def refuses(self, key: str, address: str = HERE) -> str:
        with pytest.raises(InvalidToken) as caught:
            await self.principal(key, address)
        return str(caught.value)


@pytest.fixture
async def desk(engine: AsyncEngine) -> Desk:
    return await Desk(engine).open()


async def test_a_key_stands_for_its_owner(desk: Desk) -> None:
    """Whoever sends a key acts for its owner, with the key's scopes and rate."""
    key, secret = await desk.create(rate="5/minute")
    principal = await desk.principal(secret)
    assert (principal.subject, principal.name, principal.role) == (desk.owner, "ana", Role.CLIENT)
    assert (principal.scopes, principal.expires_at) == (TERMS.scopes, IN_A_MONTH)
    assert (principal.key_id, principal.rate) == (key.id, "5/minute")


async def test_a_key_is_kept_as_it_was_made(desk: Desk) -> None:
    """What a key was given comes back from the database."""
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    given = replace(TERMS, addresses=networks, rate="5/hour", monthly_requests=7, monthly_megapixels=9)
    key, _ = await desk.keys.create(desk.owner, given)
    assert await desk.keys.get(key.id) == key
    assert (key.terms, key.user_id, key.user_name) == (given, desk.owner, "ana")
    assert (key.revoked_at, key.previous_until, key.last_used_at) == (None, None, None)


async def test_a_key_is_random_and_stored_hashed(desk: Desk) -> None:
    """A key ends in 256 random bits that the database does not hold, in no two keys the same."""
    made = [(await desk.create())[1] for _ in range(20)]
    assert all(re.fullmatch(r"atl_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", key) for key in made)
    assert len({key[-43:] for key in made}) == 20
    async with desk.engine.connect() as connection:
        stored = str((await connection.execute(text("SELECT * FROM api_keys"))).all())
    assert not any(key[-43:] in stored for key in made)


@pytest.mark.parametrize(
    "credential",
    [
        *("atl_", f"atl_{ID}", f"atl_{ID}_", f"atl_{ID[1:]}_{SECRET}", f"atl_{ID[1:]}\x00_{SECRET}"),
        *(f"atl_{ID}_{SECRET}A", f"atl_{ID}_{SECRET[1:]}", f"atl_{ID}_{SECRET}\n", f" atl_{ID}_{SECRET}"),
        *(f"ATL_{ID}_{SECRET}", "atl_\ud800_x", "atl_" + "_" * 9000),
    ],
)
async def test_what_is_no_key_never_reaches_the_database(credential: str) -> None:
    """Only the exact form of a key is looked up: any other is refused while the database is away."""
    away = open_engine("postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(InvalidToken):
        await KeyStore(away).verify(credential)
    with pytest.raises(DatabaseUnavailable):
        await KeyStore(away).verify(f"atl_{ID}_{SECRET}")
    await away.dispose()


async def test_every_refusal_reads_the_same(desk: Desk) -> None:
    """Unknown, wrong, expired, revoked and ownerless keys are refused in the same words."""
    _, good = await desk.create()
    revoked, revoked_text = await desk.create()
    await desk.keys.revoke(revoked.id)
    _, expired = await desk.create(expires_at=desk.past)
    unknown = good.replace(good[4:20], "0" * 16)
    wrong = good[:-43] + "A" * 43
    words = {str(await _refusal(desk.keys, key)) for key in (unknown, wrong, expired, revoked_text, "atl_x")}
    await desk.disable_owner()
    words.add(str(await _refusal(desk.keys, good)))
    assert len(words) == 1


async def _refusal(keys: KeyStore, credential: str) -> InvalidToken:
    with pytest.raises(InvalidToken) as caught:
        await keys.verify(credential)
    return caught.value


async def test_a_key_expires(desk: Desk) -> None:
    """A key counts until its last moment, also where it was seen before."""
    _, secret = await desk.create(expires_at=datetime.fromtimestamp(desk.now + 10, UTC))
    await desk.principal(secret)
    desk.now += 9.9
    await desk.principal(secret)
    desk.now += 0.2
    await desk.refuses(secret)


async def test_a_rotated_key_has_two_secrets_for_a_while(desk: Desk) -> None:
    """After a rotation the old secret counts for a day beside the new one, and then no longer."""
    key, old = await desk.create()
    rotated, new = await desk.keys.rotate(key.id, OVERLAP)
    assert rotated.id == key.id
    assert rotated.terms == key.terms
    assert (await desk.principal(old)).key_id == (await desk.principal(new)).key_id == key.id
    desk.now += OVERLAP.total_seconds() - 1
    await desk.principal(old)
    desk.now += 2
    await desk.refuses(old)
    await desk.principal(new)


async def test_a_rotation_without_an_overlap_ends_the_old_secret_at_once(desk: Desk) -> None:
    """With no overlap the old secret is refused although this process has just accepted it."""
    key, old = await desk.create()
    await desk.principal(old)
    _, new = await desk.keys.rotate(key.id, timedelta(0))
    await desk.refuses(old)
    await desk.principal(new)


async def test_a_second_rotation_ends_the_oldest_secret(desk: Desk) -> None:
    """Two secrets count at most: the newest and the one before it."""
    key, first = await desk.create()
    await desk.principal(first)
    _, second = await desk.keys.rotate(key.id, OVERLAP)
    _, third = await desk.keys.rotate(key.id, OVERLAP)
    await desk.refuses(first)
    await desk.principal(second)
    await desk.principal(third)


async def test_rotations_at_once_leave_one_newest_secret(desk: Desk) -> None:
    """Of several rotations at once, the last two secrets count and no other."""
    key, first = await desk.create()
    made = [secret for _, secret in await asyncio.gather(*(desk.keys.rotate(key.id, OVERLAP) for _ in range(6)))]
    accepted = 0
    for secret in [first, *made]:
        try:
            accepted += bool(await desk.principal(secret))
        except InvalidToken:
            continue
    assert accepted == 2


async def test_a_rotation_keeps_or_moves_the_end(desk: Desk) -> None:
    """A key ends when it did, or when the rotation says."""
    key, _ = await desk.create()
    assert (await desk.keys.rotate(key.id, OVERLAP))[0].terms.expires_at == IN_A_MONTH
    later = IN_A_MONTH + timedelta(days=30)
    assert (await desk.keys.rotate(key.id, OVERLAP, later))[0].terms.expires_at == later


async def test_an_ended_key_cannot_be_rotated(desk: Desk) -> None:
    """Neither a revoked nor an expired key comes back."""
    revoked, _ = await desk.create()
    await desk.keys.revoke(revoked.id)
    expired, _ = await desk.create(expires_at=desk.past)
    for key in (revoked, expired):
        with pytest.raises(KeyEnded):
            await desk.keys.rotate(key.id, OVERLAP, IN_A_MONTH)


async def test_a_revoked_key_is_refused_in_every_process(desk: Desk) -> None:
    """A key that a process has accepted is refused there once it has heard; the first time is kept."""
    key, secret = await desk.create()
    await desk.principal(secret)
    revoked = await KeyStore(desk.engine).revoke(key.id)
    await desk.refuses(secret)
    desk.now += 100
    assert (await desk.keys.revoke(key.id)).revoked_at == revoked.revoked_at


async def test_a_disabled_owner_s_keys_are_refused(desk: Desk) -> None:
    """Disabling a user ends the user's keys at once."""
    _, secret = await desk.create()
    await desk.principal(secret)
    await desk.disable_owner()
    await desk.refuses(secret)


async def test_a_key_may_no_more_than_its_owner(desk: Desk) -> None:
    """The scopes of a key are those that the owner's role still grants."""
    _, secret = await desk.create(scopes=frozenset({Scope.PREDICT, Scope.KEYS_WRITE}))
    async with writing(desk.engine) as connection:
        await connection.execute(update(users).values(role=Role.AUDITOR.value))
    assert (await desk.principal(secret)).scopes == frozenset()


async def test_a_key_bound_to_networks_counts_from_there(desk: Desk) -> None:
    """A key with addresses is refused from any other."""
    _, secret = await desk.create(addresses=(ip_network("10.0.0.0/8"), ip_network("::1")))
    for address in ("10.1.2.3", "::1"):
        await desk.principal(secret, address)
    assert "from this address" in await desk.refuses(secret, "11.0.0.1")


async def test_what_was_read_is_read_again_within_a_minute(desk: Desk) -> None:
    """A process that heard of no change still reads a key again after a minute."""
    _, secret = await desk.create()
    verified = await desk.keys.verify(secret)
    assert verified.valid_until == pytest.approx(desk.now + RECHECK_S)


async def test_keys_are_listed_by_owner(desk: Desk) -> None:
    """A list holds one user's keys, oldest first, or everybody's; what is no user's id has none."""
    first, _ = await desk.create()
    desk.now += 1
    second, _ = await desk.create()
    olga = await desk.users.add("olga", Role.OPERATOR, "hash")
    desk.now += 1
    third, _ = await desk.keys.create(olga.id, TERMS)
    assert await desk.keys.list(desk.owner) == [first, second]
    assert await desk.keys.list() == [first, second, third]
    assert await desk.keys.list("https://issuer|\x00") == []


@pytest.mark.parametrize("key_id", ["", "x", "\x00", "0" * 16, "'; DROP TABLE api_keys; --", "\ud800"])
async def test_unknown_keys_are_not_found(desk: Desk, key_id: str) -> None:
    """No method finds a key that is not there."""
    for act in (desk.keys.get(key_id), desk.keys.revoke(key_id), desk.keys.rotate(key_id, OVERLAP)):
        with pytest.raises(KeyNotFound):
            await act


@pytest.mark.parametrize("user_id", ["", "https://issuer|subject\x00", "00000000-0000-0000-0000-000000000000"])
async def test_only_users_have_keys(desk: Desk, user_id: str) -> None:
    """A client, another issuer's user or nobody cannot own a key, nor can a disabled user."""
    with pytest.raises(NoAccount):
        await desk.keys.create(user_id, TERMS)
    await desk.disable_owner()
    with pytest.raises(NoAccount):
        await desk.create()


async def test_keys_are_counted(desk: Desk) -> None:
    """A user has so many keys and no more, however many are made at once; revoking makes room a day later."""
    made = await asyncio.gather(*(desk.create() for _ in range(MAX_KEYS + 5)), return_exceptions=True)
    assert sum(isinstance(one, TooManyKeys) for one in made) == 5
    key, _ = next(one for one in made if isinstance(one, tuple))
    await desk.keys.revoke(key.id)
    with pytest.raises(TooManyKeys):
        await desk.create()
    desk.now += 86_401
    await desk.create()
