"""Rotating API keys, on both databases."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from auth.api_keys.rules import check_rotation, restrict_terms
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
    check_rotation(await setup.principal(new), rotated, extends=False)
    caller = await setup.principal(old)
    assert caller.expires_at == rotated.previous_until
    with pytest.raises(KeyBound, match="previous secret"):
        check_rotation(caller, rotated, extends=False)
    terms = restrict_terms(caller, rotated, rotated.terms)
    assert terms.expires_at == rotated.previous_until


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
