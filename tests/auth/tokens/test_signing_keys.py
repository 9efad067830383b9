"""Generating and loading signing keys."""

from __future__ import annotations

import hashlib
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from auth.errors import WeakSigningKey
from auth.principal import Role, Scope
from auth.tokens.access import TokenAuthority, TokenPolicy
from auth.tokens.jws import generate_signing_key, load_signing_key
from auth.tokens.keyring import Keyring
from tests.support.servers.identity_provider import encode_part

PEM = generate_signing_key("ES256")
SECRET = generate_signing_key("HS256")
KEY = load_signing_key("ES256", PEM)


def test_the_kid_is_the_rfc_7638_thumbprint() -> None:
    """The kid of a key is its RFC 7638 thumbprint, the same in every process."""
    public = {name: KEY.public.to_dict()[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()
    assert KEY.kid == encode_part(hashlib.sha256(canonical).digest())
    assert load_signing_key("ES256", PEM).kid == KEY.kid
    assert load_signing_key("ES256", generate_signing_key("ES256")).kid != KEY.kid
    assert load_signing_key("HS256", SECRET).kid == load_signing_key("HS256", SECRET + "\n").kid


def test_a_pem_key_can_be_on_one_line() -> None:
    """Literal backslash-n sequences in a PEM count as line ends, as in environment files."""
    assert load_signing_key("ES256", PEM.strip().replace("\n", "\\n")).kid == KEY.kid


def encode_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> str:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        PEM[:100],
        KEY.public.to_pem().decode(),
        encode_pem(ec.generate_private_key(ec.SECP256R1()), b"locked"),
        encode_pem(ec.generate_private_key(ec.SECP384R1())),
        encode_pem(ec.generate_private_key(ec.SECP256K1())),
        encode_pem(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "secret", "cut", "public", "locked", "P-384", "secp256k1", "RSA"],
)
def test_es256_requires_a_p256_private_key(text: str) -> None:
    """Anything but a P-256 private key is rejected; the message names the setting and does not contain the key."""
    with pytest.raises(WeakSigningKey, match="AUTH__SIGNING_KEY") as refused:
        load_signing_key("ES256", text)
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["", "change-me", "change-me" * 4, "a" * 42, "0123456789abcdef" * 3, "f" * 63, "é " * 10, "pass phrase " * 2],
)
def test_hs256_requires_256_bits(text: str) -> None:
    """A secret too short for 256 bits is rejected; the message names the setting and does not contain the secret."""
    with pytest.raises(WeakSigningKey, match="AUTH__SIGNING_KEY") as refused:
        load_signing_key("HS256", text)
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize("text", ["a" * 64, "01234567" * 8, "change-me!" * 4])
def test_hs256_requires_a_random_secret(text: str) -> None:
    """A long secret that consists of repetitions is rejected for that reason."""
    with pytest.raises(WeakSigningKey, match="AUTH__SIGNING_KEY is not random") as refused:
        load_signing_key("HS256", text)
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [hashlib.sha256(b"").hexdigest(), SECRET, encode_part(bytes(range(32))), "a phrase, long enough: 32 chars!!"],
    ids=["hexadecimal", "generated", "base64", "text"],
)
def test_hs256_accepts_hexadecimal_base64_and_text(text: str) -> None:
    """Secrets of 256 bits in the usual encodings are accepted."""
    authority = TokenAuthority(Keyring("HS256", text), TokenPolicy("issuer", "audience", lifetime_s=60))
    issued = authority.issue(subject="1", name="ada", role=Role.CLIENT, scopes={Scope.PREDICT})
    assert authority.verify(issued.access_token).name == "ada"


def test_a_private_key_is_rejected_as_an_hs256_secret() -> None:
    """A PEM key is rejected for HS256, and the message names AUTH__SIGNING_ALGORITHM."""
    with pytest.raises(WeakSigningKey, match="AUTH__SIGNING_ALGORITHM"):
        load_signing_key("HS256", PEM)


def test_no_repr_contains_a_secret() -> None:
    """The representations of keys and tokens do not contain their secrets."""
    authority = TokenAuthority(Keyring("ES256", PEM), TokenPolicy("issuer", "audience", lifetime_s=60))
    issued = authority.issue(subject="1", name="ada", role=Role.CLIENT, scopes={Scope.PREDICT})
    assert issued.access_token not in repr(issued)
    assert repr(KEY) == f"SigningKey(algorithm='ES256', kid='{KEY.kid}')"
