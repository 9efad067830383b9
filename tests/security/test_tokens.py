"""Lines 1 to 5: forged and malformed access tokens, sent to a running gateway that the tests know the key of."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from auth.tokens.jws import SigningKey, generate_signing_key, load_signing_key

Forge = Callable[..., str]


def b64(data: bytes | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def key(gateway: Any) -> SigningKey:
    """The gateway's own key: what is refused in spite of it is refused for what it says."""
    return load_signing_key("ES256", gateway.environment["AUTH__SIGNING_KEY"])


@pytest.fixture(scope="module")
def genuine(gateway: Any) -> str:
    return str(gateway.token())


@pytest.fixture(scope="module")
def forge(genuine: str, key: SigningKey) -> Forge:
    """A genuine token with changed members, `...` removes one, signed with the gateway's key or otherwise."""
    parts = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in genuine.split(".")[:2]]

    def make(
        header: dict[str, Any] | None = None,
        claims: dict[str, Any] | None = None,
        sign: Callable[[bytes], bytes] = key.private.sign,
    ) -> str:
        changed = [parts[0] | (header or {}), parts[1] | (claims or {})]
        kept = [{name: value for name, value in part.items() if value is not ...} for part in changed]
        message = ".".join(b64(part) for part in kept)
        return f"{message}.{b64(sign(message.encode()))}"

    return make


@pytest.fixture(scope="module")
def status(gateway: Any) -> Callable[[str], int]:
    """What the gateway answers to a token."""

    def ask(token: str) -> int:
        answer = httpx.get(f"{gateway.base_url}/v1/me", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == 'Bearer realm="atalaya", error="invalid_token"'
            assert token not in answer.text
        return answer.status_code

    return ask


def test_line_00_the_forge_works(forge: Forge, status: Callable[[str], int]) -> None:
    """A token that changes nothing is taken: what follows is refused for its change alone."""
    assert status(forge()) == 200


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None])
def test_line_01_none_is_refused(forge: Forge, status: Callable[[str], int], alg: str | None) -> None:
    """An unsigned token is refused in any spelling."""
    assert status(forge({"alg": alg}, sign=lambda _: b"")) == 401


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_line_01_the_public_key_is_no_secret(
    gateway: Any, forge: Forge, status: Callable[[str], int], key: SigningKey, alg: str
) -> None:
    """The published key, used as an HMAC secret in every form it has, signs nothing."""
    published = httpx.get(f"{gateway.base_url}/.well-known/jwks.json").json()["keys"][0]
    hashed = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[alg]
    for secret in (key.public.to_pem(), key.public.to_pem().strip(), json.dumps(published).encode(), b""):
        sign = lambda message, secret=secret: hmac.new(secret, message, hashed).digest()  # noqa: E731
        assert status(forge({"alg": alg}, sign=sign)) == 401


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES384", "ES256K", "EdDSA", "es256"])
def test_line_01_one_key_has_one_algorithm(forge: Forge, status: Callable[[str], int], alg: str) -> None:
    """The right key under another algorithm's name is refused."""
    assert status(forge({"alg": alg})) == 401


def test_line_01_a_key_in_the_token_is_not_used(forge: Forge, status: Callable[[str], int]) -> None:
    """A key that a token brings, or the address of one, is no key, whoever signed."""
    own = load_signing_key("ES256", generate_signing_key("ES256"))
    brought = {"jwk": own.public_jwk(), "jku": "http://127.0.0.1:1/k", "x5u": "http://127.0.0.1:1/c", "x5c": ["MII"]}
    for name, value in brought.items():
        assert status(forge({name: value}, sign=own.private.sign)) == 401
        assert status(forge({name: value})) == 401


@pytest.mark.parametrize("crit", [["exp"], ["unknown"], [], "exp"])
def test_line_01_critical_extensions_are_refused(forge: Forge, status: Callable[[str], int], crit: Any) -> None:
    """No extension is understood, so none may be critical."""
    assert status(forge({"crit": crit, "unknown": 1})) == 401


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat", "sub", "jti"])
@pytest.mark.parametrize("value", [..., None, [], {}, -1, True], ids=str)
def test_line_02_every_claim_is_required(forge: Forge, status: Callable[[str], int], claim: str, value: Any) -> None:
    """Without one of the claims, or with another kind of value in it, a signed token is refused."""
    assert status(forge(claims={claim: value})) == 401


@pytest.mark.parametrize("typ", [..., "JWT", "rt+jwt", "at+JWT ", None])
def test_line_02_the_type_is_required(forge: Forge, status: Callable[[str], int], typ: Any) -> None:
    """Only `at+jwt` is an access token."""
    assert status(forge({"typ": typ})) == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "http://localhost:1"},
        {"aud": "others"},
        {"aud": ["atalaya"]},
        {"exp": int(time.time()) - 3600},
        {"iat": int(time.time()) + 3600},
        {"nbf": int(time.time()) + 3600},
        {"scope": "everything"},
        {"role": "root"},
    ],
    ids=str,
)
def test_line_02_wrong_claims_are_refused(forge: Forge, status: Callable[[str], int], claims: dict[str, Any]) -> None:
    """A signed token of another issuer, for others, from another time, or with unknown rights is refused."""
    assert status(forge(claims=claims)) == 401


def test_line_03_only_the_compact_form(genuine: str, status: Callable[[str], int]) -> None:
    """JSON serialisations, other numbers of parts, padding and line ends are refused."""
    header, payload, signature = genuine.split(".")
    flattened = json.dumps({"protected": header, "payload": payload, "signature": signature})
    general = json.dumps({"payload": payload, "signatures": [{"protected": header, "signature": signature}]})
    variants = (f"{header}.{payload}", f"{genuine}.{signature}", f"{header}=.{payload}.{signature}", f"{genuine}=")
    for token in (flattened, general, *variants, "..", "a.b.c"):
        assert status(token) == 401


def test_line_03_tokens_are_capped(forge: Forge, status: Callable[[str], int]) -> None:
    """A signed token over 8 KiB is refused before it is looked at."""
    assert status(forge(claims={"name": "x" * 5000})) == 200
    assert status(forge(claims={"name": "x" * 9000})) == 401


def test_line_04_an_unknown_kid_costs_nothing(forge: Forge, status: Callable[[str], int]) -> None:
    """The gateway's own keys are at hand: an unknown key id is refused, whoever signed."""
    for kid in ("unknown", "", "../../etc/passwd", "' OR 1=1 --", None, ["x"], {"x": 1}, ...):
        assert status(forge({"kid": kid})) == 401


@pytest.mark.parametrize("secret", ["short", "0" * 63, "a" * 42])
def test_line_05_symmetric_secrets_have_256_bits(gateway: Any, secret: str) -> None:
    """A gateway with a weaker secret does not start, and does not repeat it."""
    changes = {"AUTH__SIGNING_ALGORITHM": "HS256", "AUTH__SIGNING_KEY": secret, "PORT": gateway.free_port()}
    started = type(gateway)(gateway.folder, {**gateway.environment, **changes}).run("serve")
    assert started.returncode == 1
    assert "AUTH__SIGNING_KEY must hold at least 256 bits" in started.stderr
    assert secret not in started.stderr
