"""The algorithms of external issuers, and keys and tokens without a key id."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from auth.errors import InvalidToken
from auth.tokens.jwks import MAX_CANDIDATES
from tests.support.servers.identity_provider import IdentityProvider, MakeIssuers, encode_part, token

HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS = (*RSA_ALGORITHMS, *CURVES, "EdDSA")
RSA_KEY = rsa.generate_private_key(65537, 2048)

Sign = Callable[[bytes], bytes]


def encode_number(number: int, length: int | None = None) -> str:
    return encode_part(number.to_bytes(length or math.ceil(number.bit_length() / 8)))


def make_key(algorithm: str, **members: Any) -> tuple[dict[str, Any], Sign]:
    """Return a public key as a JWK, with the id `k` by default, and a function that signs with its private key."""
    if algorithm in RSA_ALGORITHMS:
        document, sign = _make_rsa_key(algorithm)
    elif algorithm == "EdDSA":
        ed25519 = Ed25519PrivateKey.generate()
        public = encode_part(ed25519.public_key().public_bytes_raw())
        document, sign = {"kty": "OKP", "crv": "Ed25519", "x": public}, ed25519.sign
    else:
        document, sign = _make_ec_key(algorithm)
    document = {**document, "kid": "k", "alg": algorithm, **members}
    return {name: value for name, value in document.items() if value is not ...}, sign


def _make_rsa_key(algorithm: str) -> tuple[dict[str, Any], Sign]:
    numbers, digest = RSA_KEY.public_key().public_numbers(), HASHES[algorithm[2:]]
    pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
    pad = pss if algorithm.startswith("PS") else padding.PKCS1v15()
    document = {"kty": "RSA", "n": encode_number(numbers.n), "e": encode_number(numbers.e)}
    return document, lambda message: RSA_KEY.sign(message, pad, digest)


def _make_ec_key(algorithm: str) -> tuple[dict[str, Any], Sign]:
    key = ec.generate_private_key(CURVES[algorithm])
    length, numbers = math.ceil(key.key_size / 8), key.public_key().public_numbers()
    curve = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm]

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(HASHES[algorithm[2:]])))
        return r.to_bytes(length) + s.to_bytes(length)

    coordinates = {"x": encode_number(numbers.x, length), "y": encode_number(numbers.y, length)}
    return {"kty": "EC", "crv": curve, **coordinates}, sign


def sign_token(provider: IdentityProvider, sign: Sign, **header: Any) -> str:
    claims = token(provider).split(".")[1]
    message = f"{encode_part({'kid': 'k', 'typ': 'at+jwt', **header})}.{claims}"
    return f"{message}.{encode_part(sign(message.encode()))}"


async def assert_rejected(issuers: Any, credential: str) -> None:
    with pytest.raises(InvalidToken) as rejected:
        await issuers.verify(credential)
    assert credential not in str(rejected.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_algorithm_verifies(provider: IdentityProvider, make_issuers: MakeIssuers, algorithm: str) -> None:
    """A token of each algorithm is accepted, and rejected if its signature is changed, truncated or missing."""
    document, sign = make_key(algorithm)
    provider.documents["/jwks"] = {"keys": [document]}
    issuers = make_issuers(algorithms=(algorithm,))
    credential = sign_token(provider, sign, alg=algorithm)
    assert (await issuers.verify(credential)).principal.name == "ada"
    message, _, signature = credential.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[5] ^= 1
    for wrong in (bytes(raw), bytes(raw[:-1]), b"", b"\0" * len(raw)):
        await assert_rejected(issuers, f"{message}.{encode_part(wrong)}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_key_verifies_for_its_algorithm_only(
    provider: IdentityProvider, make_issuers: MakeIssuers, algorithm: str
) -> None:
    """A token that names another algorithm than its key is rejected, even if both are configured (RFC 8725, 3.1)."""
    document, sign = make_key(algorithm)
    provider.documents["/jwks"] = {"keys": [document]}
    issuers = make_issuers(algorithms=ALGORITHMS)
    others = tuple(other for other in ALGORITHMS if other != algorithm)
    for other in others:
        await assert_rejected(issuers, sign_token(provider, sign, alg=other))
    await assert_rejected(make_issuers(algorithms=others), sign_token(provider, sign, alg=algorithm))


async def test_a_pss_signature_has_a_salt_as_long_as_the_hash(
    provider: IdentityProvider, make_issuers: MakeIssuers
) -> None:
    """A PS256 signature with another salt length is rejected (RFC 7518, section 3.5)."""
    document, _ = make_key("PS256")
    provider.documents["/jwks"] = {"keys": [document]}
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 20)
    credential = sign_token(provider, lambda message: RSA_KEY.sign(message, pss, hashes.SHA256()), alg="PS256")
    await assert_rejected(make_issuers(algorithms=("PS256",)), credential)


@pytest.mark.parametrize(
    "members",
    [
        {"crv": "Ed448"},
        {"crv": "X25519"},
        {"crv": ...},
        {"x": "AQ"},
        {"x": ...},
        {"x": 7},
        {"d": "AQ"},
        {"alg": "ES256"},
    ],
    ids=str,
)
async def test_unusable_ed25519_keys_are_skipped(
    provider: IdentityProvider, make_issuers: MakeIssuers, members: dict[str, Any]
) -> None:
    """Keys on other curves, truncated and private keys, and keys for another algorithm are skipped; others are used."""
    document, sign = make_key("EdDSA", **members)
    provider.documents["/jwks"] = {"keys": [document, provider.key.public_jwk()]}
    issuers = make_issuers(algorithms=("ES256", "EdDSA"))
    assert await issuers.verify(token(provider))
    await assert_rejected(issuers, sign_token(provider, sign, alg="EdDSA"))


@pytest.mark.parametrize("key_id", [..., "k"], ids=["key-without-id", "key-with-id"])
@pytest.mark.parametrize("kid", [..., "other"], ids=["token-without-id", "token-with-id"])
async def test_a_missing_key_id_is_no_obstacle(
    provider: IdentityProvider, make_issuers: MakeIssuers, key_id: Any, kid: Any
) -> None:
    """If the key or the token has no id, the keys of the algorithm are tried; two different ids never match."""
    document, sign = make_key("ES256", kid=key_id)
    _, forge = make_key("ES256", kid=key_id)
    provider.documents["/jwks"] = {"keys": [make_key("EdDSA", kid="ed")[0], document]}
    issuers = make_issuers(algorithms=("ES256", "EdDSA"))
    if key_id == "k" and kid == "other":
        await assert_rejected(issuers, sign_token(provider, sign, alg="ES256", kid=kid))
    else:
        assert await issuers.verify(sign_token(provider, sign, alg="ES256", kid=kid))
    await assert_rejected(issuers, sign_token(provider, forge, alg="ES256", kid=kid))


async def test_few_keys_are_tried(provider: IdentityProvider, make_issuers: MakeIssuers) -> None:
    """Of many keys without an id, only the first few are tried, so that a forged token takes bounded time."""
    keys = [make_key("ES256", kid=...) for _ in range(MAX_CANDIDATES + 1)]
    provider.documents["/jwks"] = {"keys": [document for document, _ in keys]}
    issuers = make_issuers()
    assert await issuers.verify(sign_token(provider, keys[MAX_CANDIDATES - 1][1], alg="ES256"))
    await assert_rejected(issuers, sign_token(provider, keys[MAX_CANDIDATES][1], alg="ES256"))


async def test_a_rotated_key_without_an_id_is_found(
    provider: IdentityProvider, make_issuers: MakeIssuers, clock: list[float]
) -> None:
    """A signature by an unknown key causes at most one fetch in thirty seconds, and the new key is then accepted."""
    old, sign_old = make_key("ES256", kid=...)
    new, sign_new = make_key("ES256", kid=...)
    provider.documents["/jwks"] = {"keys": [old]}
    issuers = make_issuers()
    assert await issuers.verify(sign_token(provider, sign_old, alg="ES256"))
    provider.documents["/jwks"] = {"keys": [new]}
    for _ in range(20):
        await assert_rejected(issuers, sign_token(provider, sign_new, alg="ES256"))
    assert provider.fetched.count("/jwks") == 1
    clock[0] += 31
    assert await issuers.verify(sign_token(provider, sign_new, alg="ES256"))
    assert provider.fetched.count("/jwks") == 2
