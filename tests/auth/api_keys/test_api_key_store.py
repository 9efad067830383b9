"""Creating, verifying and revoking API keys, on both databases."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from msgspec.structs import replace
from sqlalchemy import text, update

from auth.api_keys.store import MAX_KEYS, OVERLAP, RECHECK_S, KeyStore
from auth.clients import ClientStore
from auth.errors import InvalidToken, KeyNotFound, NoAccount, TooManyKeys
from auth.principal import Role, Scope
from auth.tables import users
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import writing
from tests.auth.api_keys.key_setup import EXPIRES_AT, TERMS, KeySetup

ID, SECRET = "0" * 16, "A" * 43


async def test_a_key_authenticates_as_its_owner(setup: KeySetup) -> None:
    """A request with a key has the owner's identity and role, and the key's scopes and rate."""
    key, secret = await setup.create(rate="5/minute")
    principal = await setup.principal(secret)
    assert (principal.subject, principal.name, principal.role) == (setup.owner, "ana", Role.CLIENT)
    assert (principal.scopes, principal.expires_at) == (TERMS.scopes, EXPIRES_AT)
    assert (principal.key_id, principal.rate) == (key.id, "5/minute")


async def test_a_key_is_stored_as_created(setup: KeySetup) -> None:
    """All terms of a key are read back from the database."""
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    terms = replace(TERMS, addresses=networks, rate="5/hour", monthly_requests=7, monthly_megapixels=9)
    key, _ = await setup.keys.create(setup.owner, terms)
    assert await setup.keys.get(key.id) == key
    assert (key.terms, key.user_id, key.user_name) == (terms, setup.owner, "ana")
    assert (key.revoked_at, key.previous_until, key.last_used_at) == (None, None, None)


async def test_a_key_is_random_and_stored_hashed(setup: KeySetup) -> None:
    """The secret of a key is 256 random bits, which the database does not contain."""
    created = [(await setup.create())[1] for _ in range(20)]
    assert all(re.fullmatch(r"atl_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", key) for key in created)
    assert len({key[-43:] for key in created}) == 20
    async with setup.engine.connect() as connection:
        stored = str((await connection.execute(text("SELECT * FROM api_keys"))).all())
    assert not any(key[-43:] in stored for key in created)


@pytest.mark.parametrize(
    "credential",
    [
        *("atl_", f"atl_{ID}", f"atl_{ID}_", f"atl_{ID[1:]}_{SECRET}", f"atl_{ID[1:]}\x00_{SECRET}"),
        *(f"atl_{ID}_{SECRET}A", f"atl_{ID}_{SECRET[1:]}", f"atl_{ID}_{SECRET}\n", f" atl_{ID}_{SECRET}"),
        *(f"ATL_{ID}_{SECRET}", "atl_\ud800_x", "atl_" + "_" * 9000),
    ],
)
async def test_malformed_keys_never_reach_the_database(credential: str) -> None:
    """Only text in the exact form of a key is looked up; other text is rejected even without a database."""
    unreachable = open_engine("postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(InvalidToken):
        await KeyStore(unreachable).verify(credential)
    with pytest.raises(DatabaseUnavailable):
        await KeyStore(unreachable).verify(f"atl_{ID}_{SECRET}")
    await unreachable.dispose()


async def test_every_invalid_key_has_the_same_message(setup: KeySetup) -> None:
    """Unknown, wrong, expired and revoked keys and the keys of disabled owners get the same message."""
    _, good = await setup.create()
    revoked, revoked_text = await setup.create()
    await setup.keys.revoke(revoked.id)
    _, expired = await setup.create(expires_at=setup.past)
    unknown = good.replace(good[4:20], "0" * 16)
    wrong = good[:-43] + "A" * 43
    messages = {str(await _verify_invalid(setup.keys, key)) for key in (unknown, wrong, expired, revoked_text, "atl_x")}
    await setup.disable_owner()
    messages.add(str(await _verify_invalid(setup.keys, good)))
    assert len(messages) == 1


async def _verify_invalid(keys: KeyStore, credential: str) -> InvalidToken:
    with pytest.raises(InvalidToken) as caught:
        await keys.verify(credential)
    return caught.value


async def test_a_key_expires(setup: KeySetup) -> None:
    """A key is accepted until it expires, even if it is cached."""
    _, secret = await setup.create(expires_at=datetime.fromtimestamp(setup.now + 10, UTC))
    await setup.principal(secret)
    setup.now += 9.9
    await setup.principal(secret)
    setup.now += 0.2
    await setup.rejects(secret)


async def test_a_revoked_key_is_rejected_in_every_process(setup: KeySetup) -> None:
    """A process that cached a key rejects it after reading the revocation; revoking it again keeps the time."""
    key, secret = await setup.create()
    await setup.principal(secret)
    (revoked,) = await KeyStore(setup.engine).revoke(key.id)
    await setup.rejects(secret)
    setup.now += 100
    assert await setup.keys.revoke(key.id) == [revoked]


async def test_keys_of_a_disabled_owner_are_rejected(setup: KeySetup) -> None:
    """Disabling a user invalidates the user's keys at once."""
    _, secret = await setup.create()
    await setup.principal(secret)
    await setup.disable_owner()
    await setup.rejects(secret)


async def test_a_key_has_no_scope_that_its_owner_lacks(setup: KeySetup) -> None:
    """A key's scopes are limited to the scopes that the owner's role grants now."""
    _, secret = await setup.create(scopes=frozenset({Scope.PREDICT, Scope.KEYS_WRITE}))
    async with writing(setup.engine) as connection:
        await connection.execute(update(users).values(role=Role.AUDITOR.value))
    assert (await setup.principal(secret)).scopes == frozenset()


async def test_a_key_with_addresses_is_accepted_from_them_only(setup: KeySetup) -> None:
    """A key with addresses is rejected from any other address."""
    _, secret = await setup.create(addresses=(ip_network("10.0.0.0/8"), ip_network("::1")))
    for address in ("10.1.2.3", "::1"):
        await setup.principal(secret, address)
    assert "from this address" in await setup.rejects(secret, "11.0.0.1")


async def test_a_cached_key_is_read_again_after_a_minute(setup: KeySetup) -> None:
    """A verified key is used for a minute without being read; then a change that was not announced takes effect."""
    _, secret = await setup.create()
    await setup.principal(secret)
    async with writing(setup.engine) as connection:
        await connection.execute(update(users).values(disabled_at=setup.past))
    setup.now += RECHECK_S - 0.1
    await setup.principal(secret)
    setup.now += 0.2
    await setup.rejects(secret)


async def test_keys_are_listed_by_owner(setup: KeySetup) -> None:
    """The list contains the keys of one user or of all, oldest first; text that is not a user id has none."""
    first, _ = await setup.create()
    setup.now += 1
    second, _ = await setup.create()
    olga = await setup.users.add("olga", Role.OPERATOR, "hash")
    setup.now += 1
    third, _ = await setup.keys.create(olga.id, TERMS)
    assert await setup.keys.list(setup.owner) == [first, second]
    assert await setup.keys.list() == [first, second, third]
    assert await setup.keys.list("https://issuer|\x00") == []


@pytest.mark.parametrize("key_id", ["", "x", "\x00", "0" * 16, "'; DROP TABLE api_keys; --", "\ud800"])
async def test_unknown_keys_are_not_found(setup: KeySetup, key_id: str) -> None:
    """Every method raises KeyNotFound for an unknown key id."""
    for act in (setup.keys.get(key_id), setup.keys.revoke(key_id), setup.keys.rotate(key_id, OVERLAP)):
        with pytest.raises(KeyNotFound):
            await act


async def test_only_users_have_keys(setup: KeySetup) -> None:
    """Clients, users of external issuers, unknown users and disabled users cannot own a key."""
    client, _ = await ClientStore(setup.engine).add("job", {Scope.PREDICT})
    for owner in (client.id, "https://issuer|subject\x00", "", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(NoAccount):
            await setup.keys.create(owner, TERMS)
    await setup.disable_owner()
    with pytest.raises(NoAccount):
        await setup.create()


async def test_the_number_of_keys_is_limited(setup: KeySetup) -> None:
    """A user cannot exceed the limit with concurrent creations; a revoked key counts towards it for a day."""
    created = [await setup.create() for _ in range(MAX_KEYS - 10)]
    results = await asyncio.gather(*(setup.create() for _ in range(15)), return_exceptions=True)
    assert sum(isinstance(result, TooManyKeys) for result in results) == 5
    key, _ = created[0]
    await setup.keys.revoke(key.id)
    with pytest.raises(TooManyKeys):
        await setup.create()
    setup.now += 86_401
    await setup.create()
