"""Keyrings of several signing keys, and their rotation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from auth.errors import WeakSigningKey
from auth.principal import Role, Scope
from auth.tokens.access import TokenAuthority, TokenPolicy
from auth.tokens.jws import SigningAlgorithm, generate_signing_key
from auth.tokens.keyring import ACTIVATION_DELAY, RETIREMENT_DELAY, Keyring, read_bundle, rotate_bundle

POLICY = TokenPolicy("https://atalaya.example", "atalaya", lifetime_s=900)


def issue(keyring: Keyring) -> str:
    authority = TokenAuthority(keyring, POLICY)
    return authority.issue(subject="1", name="ana", role=Role.CLIENT, scopes={Scope.PREDICT}).access_token


def later(by: timedelta) -> float:
    return (datetime.now(UTC) + by).timestamp()


@pytest.mark.parametrize("algorithm", ["ES256", "HS256"])
def test_tokens_stay_valid_after_a_rotation(algorithm: SigningAlgorithm) -> None:
    """The rotated bundle contains both keys, so that tokens of the old key still verify."""
    old = generate_signing_key(algorithm)
    new = rotate_bundle(algorithm, old)
    before, after = Keyring(algorithm, old), Keyring(algorithm, new)
    assert TokenAuthority(after, POLICY).verify(issue(before)).name == "ana"
    assert len(read_bundle(algorithm, new)) == 2


def test_a_new_key_signs_after_a_delay() -> None:
    """The old key signs for some seconds, so that processes that have not yet read the new key reject no token."""
    old, before = generate_signing_key("ES256"), datetime.now(UTC)
    bundle = rotate_bundle("ES256", old)
    old_kid = Keyring("ES256", old).signing.kid
    assert Keyring("ES256", bundle, before.timestamp).signing.kid == old_kid
    after_delay = ACTIVATION_DELAY + timedelta(seconds=1)
    assert Keyring("ES256", bundle, lambda: later(after_delay)).signing.kid != old_kid
    slow = Keyring("ES256", bundle, (before + after_delay).timestamp, activation_delay=timedelta(minutes=2))
    assert slow.signing.kid == old_kid


def test_the_delay_of_a_key_that_is_stored_late_begins_with_its_arrival() -> None:
    """The delay begins when a running process first reads the key, even if the key was created minutes before."""
    now = datetime.now(UTC)
    old = generate_signing_key("ES256")
    bundle = rotate_bundle("ES256", old)
    clock = iter(now + timedelta(minutes=3, seconds=seconds) for seconds in (0, 9, 9, 11))
    keyring = Keyring("ES256", old, lambda: next(clock).timestamp())
    old_kid = Keyring("ES256", old).signing.kid
    keyring.replace(bundle)
    assert keyring.signing.kid == old_kid
    keyring.replace(bundle)  # does not restart the delay
    assert keyring.signing.kid != old_kid
    restarted = Keyring("ES256", bundle, (now + timedelta(minutes=3)).timestamp)
    assert restarted.signing.kid != old_kid


def test_a_key_can_wait_for_the_end_of_a_roll_out() -> None:
    """A key whose creation time is in the future is published at once, and signs only from that time."""
    now, old = datetime.now(UTC), generate_signing_key("ES256")
    _, _, keys = rotate_bundle("ES256", old).partition("\n")
    bundle = f"Created: {(now + timedelta(hours=1)).isoformat()}\n{keys}"
    old_kid = Keyring("ES256", old).signing.kid
    during = Keyring("ES256", bundle, (now + timedelta(minutes=59)).timestamp)
    assert (during.signing.kid, len(during.public_jwks()["keys"])) == (old_kid, 2)
    assert Keyring("ES256", bundle, (now + timedelta(minutes=61)).timestamp).signing.kid != old_kid


def test_rotating_removes_keys_without_valid_tokens() -> None:
    """A key is removed once its successor has signed for longer than any token is valid."""
    oldest, old = generate_signing_key("ES256"), generate_signing_key("ES256")
    long_ago = (datetime.now(UTC) - RETIREMENT_DELAY - timedelta(minutes=1)).isoformat()
    remaining = read_bundle("ES256", rotate_bundle("ES256", f"{oldest}Created: {long_ago}\n{old}"))
    assert [entry.text for entry in remaining[1:]] == [old.strip()]


def test_rotating_twice_keeps_all_keys() -> None:
    """Two rotations within an hour keep three keys, because tokens of each may still be valid."""
    bundle = rotate_bundle("ES256", rotate_bundle("ES256", generate_signing_key("ES256")))
    assert len(read_bundle("ES256", bundle)) == 3


def test_a_bundle_can_be_an_environment_variable() -> None:
    """Literal backslash-n sequences in a bundle count as line ends."""
    bundle = rotate_bundle("ES256", generate_signing_key("ES256"))
    assert read_bundle("ES256", bundle.replace("\n", "\\n")) == read_bundle("ES256", bundle)


def test_the_published_keys_are_public() -> None:
    """The JWK set contains every public key, with kid, algorithm and use, and no secret."""
    keyring = Keyring("ES256", rotate_bundle("ES256", generate_signing_key("ES256")))
    published = keyring.public_jwks()["keys"]
    assert [set(key) for key in published] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}] * 2
    assert {key["kid"] for key in published} >= {keyring.signing.kid}
    assert Keyring("HS256", generate_signing_key("HS256")).public_jwks() == {"keys": []}


@pytest.mark.parametrize("bundle", ["", "Created: yesterday\n", "no key"])
def test_an_unusable_bundle_changes_nothing(bundle: str) -> None:
    """A bundle without a usable key is rejected, and the keyring keeps its keys."""
    keyring = Keyring("ES256", generate_signing_key("ES256"))
    kid = keyring.signing.kid
    with pytest.raises(WeakSigningKey):
        keyring.replace(bundle)
    assert keyring.signing.kid == kid


def test_an_invalid_creation_time_is_rejected() -> None:
    """A `Created:` line without a valid time is rejected."""
    with pytest.raises(WeakSigningKey, match="Created"):
        Keyring("ES256", f"Created: yesterday\n{generate_signing_key('ES256')}")


def test_only_a_removed_key_is_reported() -> None:
    """The keyring reports when a key is removed, but not when one is added."""
    old = generate_signing_key("ES256")
    both = rotate_bundle("ES256", old)
    keyring, removals = Keyring("ES256", old), list[str]()
    keyring.on_removal = lambda: removals.append("removed")
    keyring.replace(both)
    assert removals == []
    keyring.replace(generate_signing_key("ES256"))
    assert removals == ["removed"]
