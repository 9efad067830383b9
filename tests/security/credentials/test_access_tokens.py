"""Threats T1, T2, T3, T4 and T5: forged and malformed access tokens, sent to a gateway whose signing key is known."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from auth.tokens.jws import SigningKey, generate_signing_key, load_signing_key
from tests.support.access_token import FreshToken
from tests.support.gateway import Gateway
from tests.support.servers.identity_provider import encode_part

Forge = Callable[..., str]
Status = Callable[[str], int]

HOUR_S = 3600


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> SigningKey:
    """The gateway's own key, so that signatures are valid and only the forged members are wrong."""
    return load_signing_key("ES256", gateway.environment["AUTH__SIGNING_KEY"])


@pytest.fixture
def genuine(fresh_token: FreshToken) -> str:
    return fresh_token.value


@pytest.fixture
def forge(genuine: str, key: SigningKey) -> Forge:
    """A function that changes members of a genuine token (`...` removes one), and signs it with the gateway's key."""
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in genuine.split(".")[:2])

    def make(
        header_changes: dict[str, Any] | None = None,
        claims_changes: dict[str, Any] | None = None,
        sign: Callable[[bytes], bytes] = key.private.sign,
    ) -> str:
        message = f"{encode_part(header | (header_changes or {}))}.{encode_part(claims | (claims_changes or {}))}"
        return f"{message}.{encode_part(sign(message.encode()))}"

    return make


@pytest.fixture
def status(gateway: Gateway) -> Status:
    """Returns the status of a request with a token, and checks the challenge of a 401."""

    def request(token: str) -> int:
        response = gateway.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
        if response.status_code == 401:
            assert response.headers["www-authenticate"] == 'Bearer realm="atalaya", error="invalid_token"'
            assert token not in response.text
        return response.status_code

    return request


def test_an_unchanged_token_is_accepted(forge: Forge, status: Status) -> None:
    """A forged token without changes is accepted, so the other tests' tokens are rejected for their changes alone."""
    assert status(forge()) == 200


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None])
def test_an_unsigned_token_is_rejected(forge: Forge, status: Status, alg: str | None) -> None:
    """T1: an unsigned token is rejected, however its algorithm `none` is spelled."""
    assert status(forge({"alg": alg}, sign=lambda _: b"")) == 401


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_the_public_key_is_no_hmac_secret(
    gateway: Gateway, forge: Forge, status: Status, key: SigningKey, alg: str
) -> None:
    """T1: a token signed by HMAC with the published key, in any of its encodings, is rejected."""
    published = gateway.get("/.well-known/jwks.json").json()["keys"][0]
    hash_function = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[alg]
    for secret in (key.public.to_pem(), key.public.to_pem().strip(), json.dumps(published).encode(), b""):

        def sign(message: bytes, secret: bytes = secret) -> bytes:
            return hmac.new(secret, message, hash_function).digest()

        assert status(forge({"alg": alg}, sign=sign)) == 401


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES384", "ES256K", "EdDSA", "es256"])
def test_a_key_has_one_algorithm(forge: Forge, status: Status, alg: str) -> None:
    """T1: a token signed with the right key but labelled with another algorithm is rejected."""
    assert status(forge({"alg": alg})) == 401


def test_a_key_inside_the_token_is_ignored(forge: Forge, status: Status) -> None:
    """T1: a token that carries a key or a URL of one is rejected, whether that key or the gateway's signed it."""
    own = load_signing_key("ES256", generate_signing_key("ES256"))
    embedded = {"jwk": own.public_jwk(), "jku": "http://127.0.0.1:1/k", "x5u": "http://127.0.0.1:1/c", "x5c": ["MII"]}
    for name, value in embedded.items():
        assert status(forge({name: value}, sign=own.private.sign)) == 401
        assert status(forge({name: value})) == 401


@pytest.mark.parametrize("crit", [["exp"], ["unknown"], [], "exp"])
def test_critical_extensions_are_rejected(forge: Forge, status: Status, crit: Any) -> None:
    """T1: the gateway supports no extension, so it rejects every token with a `crit` member."""
    assert status(forge({"crit": crit, "unknown": 1})) == 401


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat", "sub", "jti"])
@pytest.mark.parametrize("value", [..., None, [], {}, -1, True], ids=str)
def test_every_claim_is_required(forge: Forge, status: Status, claim: str, value: Any) -> None:
    """T2: a signed token that lacks a required claim, or has one of another type, is rejected."""
    assert status(forge(claims_changes={claim: value})) == 401


@pytest.mark.parametrize("typ", [..., "JWT", "rt+jwt", "at+JWT ", None])
def test_the_type_is_required(forge: Forge, status: Status, typ: Any) -> None:
    """T2: a signed token whose type is not `at+jwt` is rejected."""
    assert status(forge({"typ": typ})) == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "http://localhost:1"},
        {"aud": "others"},
        {"aud": ["atalaya"]},
        {"scope": "everything"},
        {"role": "root"},
    ],
    ids=str,
)
def test_wrong_claims_are_rejected(forge: Forge, status: Status, claims: dict[str, Any]) -> None:
    """T2: a signed token of another issuer, for another audience or with unknown rights is rejected."""
    assert status(forge(claims_changes=claims)) == 401


@pytest.mark.parametrize(("claim", "from_now_s"), [("exp", -HOUR_S), ("iat", HOUR_S), ("nbf", HOUR_S)])
def test_a_token_of_another_time_is_rejected(forge: Forge, status: Status, claim: str, from_now_s: int) -> None:
    """T2: a signed token that has expired, or that is issued or valid only in the future, is rejected."""
    assert status(forge(claims_changes={claim: int(time.time()) + from_now_s})) == 401


def test_only_the_compact_form_is_accepted(genuine: str, status: Status) -> None:
    """T3: JSON serialisations, other numbers of parts and padded parts are rejected."""
    header, payload, signature = genuine.split(".")
    flattened = json.dumps({"protected": header, "payload": payload, "signature": signature})
    general = json.dumps({"payload": payload, "signatures": [{"protected": header, "signature": signature}]})
    variants = (f"{header}.{payload}", f"{genuine}.{signature}", f"{header}=.{payload}.{signature}", f"{genuine}=")
    for token in (flattened, general, *variants, "..", "a.b.c"):
        assert status(token) == 401


def test_the_size_of_a_token_is_limited(forge: Forge, status: Status) -> None:
    """T3: a signed token over 8 KiB is rejected, and a shorter one is accepted."""
    assert status(forge(claims_changes={"name": "x" * 5000})) == 200
    assert status(forge(claims_changes={"name": "x" * 9000})) == 401


def test_an_unknown_key_id_is_rejected(forge: Forge, status: Status) -> None:
    """T4: a signed token whose key id is missing, or is not one of the gateway's, is rejected."""
    for kid in ("unknown", "", "../../etc/passwd", "' OR 1=1 --", None, ["x"], {"x": 1}, ...):
        assert status(forge({"kid": kid})) == 401


@pytest.mark.parametrize("secret", ["short", "0" * 63, "a" * 42])
def test_symmetric_secrets_have_256_bits(gateway: Gateway, secret: str) -> None:
    """T5: a gateway with a symmetric secret under 256 bits does not start, and does not print the secret."""
    weak = gateway.with_settings(AUTH__SIGNING_ALGORITHM="HS256", AUTH__SIGNING_KEY=secret)
    serve = weak.run("serve")
    assert serve.returncode == 1
    assert "AUTH__SIGNING_KEY must hold at least 256 bits" in serve.stderr
    assert secret not in serve.stderr
