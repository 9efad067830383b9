"""Several signing keys, and how one follows another."""

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
def test_rotating_logs_nobody_out(algorithm: SigningAlgorithm) -> None:
    """Tokens of the old key stay valid, and those of the new key are known to all who have read the bundle."""
    old = generate_signing_key(algorithm)
    new = rotate_bundle(algorithm, old)
    before, after = Keyring(algorithm, old), Keyring(algorithm, new)
    assert TokenAuthority(after, POLICY).verify(issue(before)).name == "ana"
    assert len(read_bundle(algorithm, new)) == 2


def test_a_new_key_signs_when_all_know_it() -> None:
    """Within the first seconds the old key signs on, so that a process that reads late refuses nothing."""
    old = generate_signing_key("ES256")
    bundle = rotate_bundle("ES256", old)
    old_kid = Keyring("ES256", old).signing.kid
    assert Keyring("ES256", bundle, lambda: later(timedelta())).signing.kid == old_kid
    assert Keyring("ES256", bundle, lambda: later(ACTIVATION_DELAY + timedelta(seconds=1))).signing.kid != old_kid


def test_rotating_drops_what_nothing_is_signed_with() -> None:
    """A key goes once its successor has signed for longer than any token lives."""
    oldest, old = generate_signing_key("ES256"), generate_signing_key("ES256")
    long_ago = (datetime.now(UTC) - RETIREMENT_DELAY - timedelta(minutes=1)).isoformat()
    kept = read_bundle("ES256", rotate_bundle("ES256", f"{oldest}Created: {long_ago}\n{old}"))
    assert [entry.text for entry in kept[1:]] == [old.strip()]


def test_rotating_twice_at_once_keeps_all() -> None:
    """Two rotations within an hour keep three keys: tokens of each may still live."""
    bundle = rotate_bundle("ES256", rotate_bundle("ES256", generate_signing_key("ES256")))
    assert len(read_bundle("ES256", bundle)) == 3


def test_a_bundle_survives_a_variable() -> None:
    """Line ends written as backslash-n, as platforms keep them, are line ends."""
    bundle = rotate_bundle("ES256", generate_signing_key("ES256"))
    assert read_bundle("ES256", bundle.replace("\n", "\\n")) == read_bundle("ES256", bundle)


def test_the_published_keys_are_public() -> None:
    """The JWK set holds every key's public half, with kid, algorithm and use; secrets are not in it."""
    keyring = Keyring("ES256", rotate_bundle("ES256", generate_signing_key("ES256")))
    published = keyring.public_jwks()["keys"]
    assert [set(key) for key in published] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}] * 2
    assert {key["kid"] for key in published} >= {keyring.signing.kid}
    assert Keyring("HS256", generate_signing_key("HS256")).public_jwks() == {"keys": []}


@pytest.mark.parametrize("bundle", ["", "Created: yesterday\n", "no key"])
def test_an_unfit_bundle_is_refused_and_changes_nothing(bundle: str) -> None:
    """A bundle without a fit key is refused; a keyring goes on with what it has."""
    keyring = Keyring("ES256", generate_signing_key("ES256"))
    kid = keyring.signing.kid
    with pytest.raises(WeakSigningKey):
        keyring.replace(bundle)
    assert keyring.signing.kid == kid


def test_a_time_that_is_none_is_refused() -> None:
    """A `Created:` line must hold a time."""
    with pytest.raises(WeakSigningKey, match="Created"):
        Keyring("ES256", f"Created: yesterday\n{generate_signing_key('ES256')}")
