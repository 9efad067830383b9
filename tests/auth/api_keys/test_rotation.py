"""Rotating API keys, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from auth.api_keys.rules import restrict_terms
from auth.api_keys.store import OVERLAP
from auth.errors import InvalidToken, KeyBound, KeyEnded
from tests.auth.api_keys.key_setup import EXPIRES_AT, KeySetup


async def test_the_previous_secret_is_accepted_for_the_overlap(setup: KeySetup) -> None:
    """After a rotation both secrets are accepted for the overlap, then only the new one."""
    key, old = await setup.create()
    rotated, new = await setup.keys.rotate(key.id, OVERLAP)
    assert rotated.id == key.id
    assert rotated.terms == key.terms
    assert (await setup.principal(old)).key_id == (await setup.principal(new)).key_id == key.id
    setup.now += OVERLAP.total_seconds() - 1
    await setup.principal(old)
    setup.now += 2
    await setup.rejects(old)
    await setup.principal(new)


async def test_the_previous_secret_grants_nothing_beyond_the_overlap(setup: KeySetup) -> None:
    """The secret before a rotation can neither rotate the key nor create one that outlives the overlap."""
    key, old = await setup.create()
    rotated, new = await setup.keys.rotate(key.id, OVERLAP)
    caller = await setup.principal(old)
    assert caller.expires_at == rotated.previous_until
    with pytest.raises(KeyBound, match="previous secret"):
        await setup.keys.rotate(key.id, timedelta(0), used_digest=caller.key_digest)
    terms = restrict_terms(caller, rotated, rotated.terms)
    assert terms.expires_at == rotated.previous_until
    current = await setup.principal(new)
    assert (await setup.keys.rotate(key.id, OVERLAP, used_digest=current.key_digest))[0].id == key.id


async def test_the_previous_secret_of_a_key_that_ends_soon_cannot_rotate_it(setup: KeySetup) -> None:
    """The overlap ends no later than the key, so the times do not show which secret the caller used."""
    soon = datetime.fromtimestamp(setup.now, UTC) + OVERLAP / 2
    key, old = await setup.create(expires_at=soon)
    _, new = await setup.keys.rotate(key.id, OVERLAP)
    caller = await setup.principal(old)
    assert caller.expires_at == soon
    with pytest.raises(KeyBound, match="previous secret"):
        await setup.keys.rotate(key.id, timedelta(0), used_digest=caller.key_digest)
    await setup.principal(new)


async def test_only_one_of_two_rotations_with_one_secret_succeeds(setup: KeySetup) -> None:
    """A secret that was verified before a rotation cannot rotate the key after it."""
    key, old = await setup.create()
    digest = (await setup.principal(old)).key_digest
    rotations = (setup.keys.rotate(key.id, OVERLAP, used_digest=digest) for _ in range(2))
    results = await asyncio.gather(*rotations, return_exceptions=True)
    (_,) = [result for result in results if isinstance(result, KeyBound)]
    (new,) = [result[1] for result in results if isinstance(result, tuple)]
    await setup.principal(new)


async def test_a_rotation_without_an_overlap_ends_the_old_secret_at_once(setup: KeySetup) -> None:
    """Without an overlap the old secret is rejected, even if it was cached."""
    key, old = await setup.create()
    await setup.principal(old)
    _, new = await setup.keys.rotate(key.id, timedelta(0))
    await setup.rejects(old)
    await setup.principal(new)


async def test_a_second_rotation_ends_the_oldest_secret(setup: KeySetup) -> None:
    """At most two secrets are accepted: the newest and the one before it."""
    key, first = await setup.create()
    await setup.principal(first)
    _, second = await setup.keys.rotate(key.id, OVERLAP)
    _, third = await setup.keys.rotate(key.id, OVERLAP)
    await setup.rejects(first)
    await setup.principal(second)
    await setup.principal(third)


async def test_concurrent_rotations_leave_two_secrets(setup: KeySetup) -> None:
    """After concurrent rotations exactly the last two secrets are accepted."""
    key, first = await setup.create()
    secrets = [secret for _, secret in await asyncio.gather(*(setup.keys.rotate(key.id, OVERLAP) for _ in range(6)))]
    accepted = 0
    for secret in [first, *secrets]:
        try:
            accepted += bool(await setup.principal(secret))
        except InvalidToken:
            continue
    assert accepted == 2


async def test_a_rotation_keeps_or_changes_the_expiry(setup: KeySetup) -> None:
    """A rotation keeps the expiry unless it sets another."""
    key, _ = await setup.create()
    assert (await setup.keys.rotate(key.id, OVERLAP))[0].terms.expires_at == EXPIRES_AT
    later = EXPIRES_AT + timedelta(days=30)
    assert (await setup.keys.rotate(key.id, OVERLAP, later))[0].terms.expires_at == later


async def test_an_inactive_key_cannot_be_rotated(setup: KeySetup) -> None:
    """Rotating a revoked or expired key fails."""
    revoked, _ = await setup.create()
    await setup.keys.revoke(revoked.id)
    expired, _ = await setup.create(expires_at=setup.past)
    for key in (revoked, expired):
        with pytest.raises(KeyEnded):
            await setup.keys.rotate(key.id, OVERLAP, EXPIRES_AT)
