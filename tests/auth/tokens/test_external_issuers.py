"""Outside identity providers: what of their tokens and of their documents is believed."""

from __future__ import annotations

import base64
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from jose import jwk

from auth.errors import ExpiredToken, InvalidToken
from auth.principal import ROLE_SCOPES, Role, Scope
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.issuer_rules import ExternalIssuer
from auth.tokens.jws import generate_signing_key, load_signing_key

NOW = 1_800_000_000
SCOPES = {"land:read": Scope.PREDICT, "land:admin": Scope.MODELS_WRITE}
ROLES = {"operators": Role.OPERATOR, "staff": Role.CLIENT}
OTHER = load_signing_key("ES256", generate_signing_key("ES256"))
RSA_KEY = rsa.generate_private_key(65537, 2048)
P384 = jwk.construct(ec.generate_private_key(ec.SECP384R1()).public_key(), "ES384").to_dict()

TLS = ssl.create_default_context()  # reading the certificates takes longer than a test

Trust = Callable[..., ExternalIssuers]


def b64(data: bytes | dict[str, Any]) -> str:
    data = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def only(members: dict[str, Any]) -> dict[str, Any]:
    """Without those whose value is `...`."""
    return {name: value for name, value in members.items() if value is not ...}


def token(provider: Any, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """Signed by the provider's key, or by `key`, whatever it says."""
    token: str = provider.token(key, header, **{"exp": NOW + 900, "iat": NOW, **changes})
    return token


def rsa_token(provider: Any, header: dict[str, Any] | None = None) -> str:
    message = f"{b64({'alg': 'RS256', 'kid': 'rsa', 'typ': 'JWT'} | (header or {}))}.{token(provider).split('.')[1]}"
    return f"{message}.{b64(RSA_KEY.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def rsa_jwk(key: rsa.RSAPrivateKey = RSA_KEY, **members: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    n = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)
    return only({"kty": "RSA", "kid": "rsa", "n": b64(n), "e": "AQAB", **members})


@pytest.fixture
async def trust(provider: Any) -> AsyncIterator[Trust]:
    """Believe the provider, with changed rules."""
    async with httpx.AsyncClient(verify=TLS) as client:

        def make(**changes: Any) -> ExternalIssuers:
            rules = {"issuer": provider.issuer, "audience": "atalaya", "scopes": SCOPES, **changes}
            return ExternalIssuers([ExternalIssuer(**rules)], client, lambda: NOW)

        yield make


async def assert_refused(issuers: ExternalIssuers, sent: str, error: type[Exception] = InvalidToken) -> None:
    with pytest.raises(error) as refused:
        await issuers.verify(sent)
    assert sent not in str(refused.value)


async def test_a_token_becomes_a_principal_of_that_issuer(provider: Any, trust: Trust) -> None:
    """Subjects carry their issuer, so that no two providers can mean the same caller."""
    verified = await trust().verify(token(provider, name="Ada", jti="j1"))
    principal = verified.principal
    assert principal.subject == f"{provider.issuer}|ada"
    assert (principal.name, principal.role, principal.scopes) == ("Ada", None, {Scope.PREDICT})
    assert principal.expires_at == datetime.fromtimestamp(NOW + 900, UTC)
    assert principal.token_id == "j1"
    assert verified.valid_until == NOW + 60


async def test_only_its_own_issuers_are_accepted(provider: Any, trust: Trust) -> None:
    """A credential of another issuer, or none at all, is left to the other verifiers."""
    issuers = trust()
    assert issuers.accepts(token(provider))
    for sent in (token(provider, iss="https://other.example"), token(provider, iss=["a"]), token(provider, iss=...)):
        assert not issuers.accepts(sent)
    for noise in ("", "a.b.c", "atl_1_2", "\ud800.a.b", f"{b64(b'[' * 5000)}.{b64(b'[' * 5000)}.x"):
        assert not issuers.accepts(noise)


@pytest.mark.parametrize(
    "header",
    [
        *({"alg": alg} for alg in ("none", "None", "nOnE", "", None, ["ES256"], ...)),
        *({"alg": alg} for alg in ("HS256", "ES384", "RS256", "PS256", "EdDSA", "es256")),
        *({"typ": typ} for typ in ("jwt", "rt+jwt", "logout+jwt", "dpop+jwt", "", None, ["JWT"])),
        *({"kid": kid} for kid in ("", "unknown", "../jwks", None, 7, [], ...)),
        {"jwk": OTHER.public_jwk()},
        {"jku": "https://attacker.example/jwks"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"zip": "DEF"},
    ],
    ids=str,
)
async def test_line_1_headers_decide_nothing(provider: Any, trust: Trust, header: dict[str, Any]) -> None:
    """Algorithms, types, keys and their places in a header are refused, whoever signed."""
    issuers = trust()
    await assert_refused(issuers, token(provider, header=header))
    await assert_refused(issuers, token(provider, OTHER, header))


async def test_the_public_key_is_no_secret(provider: Any, trust: Trust) -> None:
    """A token signed with HMAC under the provider's public key is refused."""
    message = f"{b64({'alg': 'HS256', 'kid': provider.key.kid, 'typ': 'at+jwt'})}.{token(provider).split('.')[1]}"
    for secret in (provider.key.public.to_pem(), json.dumps(provider.key.public_jwk()).encode()):
        await assert_refused(trust(), f"{message}.{b64(hmac.digest(secret, message.encode(), 'sha256'))}")


async def test_another_key_is_refused(provider: Any, trust: Trust) -> None:
    """A foreign signature is refused, and so is a changed or a missing one."""
    sent = token(provider)
    for forged in (token(provider, OTHER), f"{sent.rpartition('.')[0]}.", f"{sent}=", f"{sent}\n", sent[:-4] + "AAAA"):
        await assert_refused(trust(), forged)


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "JWT", ...])
async def test_access_token_types_are_taken(provider: Any, trust: Trust, typ: str) -> None:
    """RFC 9068 names the first two; most providers still say the third."""
    assert (await trust().verify(token(provider, header={"typ": typ, "x5t": "x"}))).principal.name == "ada"


@pytest.mark.parametrize("claim", ["aud", "exp", "iat", "sub"])
@pytest.mark.parametrize("value", [..., None, True, [], {}, -1, 1.5, ""], ids=str)
async def test_line_2_claims_are_required(provider: Any, trust: Trust, claim: str, value: object) -> None:
    """A required claim that is missing or of another kind is refused."""
    await assert_refused(trust(), token(provider, **{claim: value}))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("aud", "atalaya2"),
        ("aud", "atalaya other"),
        ("aud", ["other"]),
        ("iat", NOW + 31),
        ("nbf", NOW + 31),
        ("nbf", "soon"),
        ("sub", "x" * 300),
        ("sub", "a\0b"),
        ("sub", "a\nb"),
        ("nonce", "n"),
        ("at_hash", "h"),
        ("c_hash", "h"),
    ],
)
async def test_a_wrong_claim_is_refused(provider: Any, trust: Trust, claim: str, value: object) -> None:
    """Other audiences, times still to come, unprintable subjects and ID tokens are refused."""
    await assert_refused(trust(), token(provider, **{claim: value}))


async def test_a_token_expires(provider: Any, trust: Trust) -> None:
    """The leeway is the issuer's own, and no token is remembered beyond its end."""
    await assert_refused(trust(leeway_s=0), token(provider, exp=NOW), ExpiredToken)
    assert (await trust(leeway_s=10).verify(token(provider, exp=NOW - 9))).valid_until == NOW - 9
    await assert_refused(trust(leeway_s=10), token(provider, exp=NOW - 10), ExpiredToken)


async def test_one_of_several_audiences_is_enough(provider: Any, trust: Trust) -> None:
    """Auth0 names its own address beside ours."""
    assert await trust().verify(token(provider, aud=["https://x.example/userinfo", "atalaya"]))


@pytest.mark.parametrize(
    ("rules", "said", "role", "scopes"),
    [
        ({}, {"scope": "land:read other predict"}, None, {Scope.PREDICT}),
        ({}, {"scope": ["land:read", "land:admin", 7]}, None, {Scope.PREDICT, Scope.MODELS_WRITE}),
        ({}, {"scope": ...}, None, set()),
        ({}, {"scope": {"land:read": 1}}, None, set()),
        ({"scope_claim": "scp"}, {"scp": ["land:read"], "scope": "land:admin"}, None, {Scope.PREDICT}),
        ({"scopes": {}}, {"scope": "predict users:admin"}, None, set()),
        ({"scopes": {}, "default_role": Role.CLIENT}, {}, Role.CLIENT, ROLE_SCOPES[Role.CLIENT]),
        ({"default_role": Role.CLIENT}, {"scope": "land:read land:admin"}, Role.CLIENT, {Scope.PREDICT}),
        (
            {"scopes": {}, "roles_claim": "groups", "roles": ROLES},
            {"groups": ["staff", "operators"]},
            Role.OPERATOR,
            ROLE_SCOPES[Role.OPERATOR],
        ),
        ({"scopes": {}, "roles_claim": "groups", "roles": ROLES}, {"groups": "staff operators"}, None, set()),
        ({"roles_claim": "groups", "roles": ROLES}, {"groups": "staff"}, Role.CLIENT, {Scope.PREDICT}),
        ({"roles_claim": "groups", "roles": ROLES}, {"groups": ["admin"]}, None, set()),
        ({"roles_claim": "groups", "roles": ROLES}, {"role": "admin"}, None, set()),
    ],
)
async def test_only_translated_words_grant(
    provider: Any, trust: Trust, rules: dict[str, Any], said: dict[str, Any], role: Role | None, scopes: set[Scope]
) -> None:
    """The issuer's words count as the setting translates them; a role and scopes together grant what both do."""
    principal = (await trust(**rules).verify(token(provider, **said))).principal
    assert (principal.role, principal.scopes) == (role, scopes)


async def test_rsa_keys_without_an_algorithm_have_the_first_that_fits(provider: Any, trust: Trust) -> None:
    """One key, one algorithm: an RSA key that names none is no RS384 key as well."""
    provider.documents["/jwks"] = {"keys": [rsa_jwk()]}
    issuers = trust(algorithms=("ES256", "RS256", "RS384"))
    assert (await issuers.verify(rsa_token(provider))).principal.name == "ada"
    await assert_refused(issuers, rsa_token(provider, {"alg": "RS384"}))
    await assert_refused(issuers, rsa_token(provider, {"alg": "ES256"}))
    await assert_refused(trust(algorithms=("ES256",)), rsa_token(provider))


@pytest.mark.parametrize(
    "unfit",
    [
        rsa_jwk(alg="RS384"),
        rsa_jwk(alg="RSA-OAEP"),
        rsa_jwk(use="enc"),
        rsa_jwk(key_ops=["encrypt"]),
        rsa_jwk(key_ops=7),
        rsa_jwk(d="AQAB"),
        rsa_jwk(rsa.generate_private_key(65537, 1024)),  # noqa: S505
        rsa_jwk(n="AQAB"),
        rsa_jwk(n=b64(b"\xff" * 1025)),
        rsa_jwk(n="?"),
        rsa_jwk(n=7),
        rsa_jwk(e=...),
        rsa_jwk(e=""),
        rsa_jwk(e="Ag"),
        rsa_jwk(kty="EC", crv="P-256"),
        rsa_jwk(kty=["RSA"]),
        rsa_jwk(kid=7),
        rsa_jwk(kid=...),
        {"kty": "oct", "kid": "rsa", "k": "AAAA"},
        P384 | {"kid": "rsa"},
        P384 | {"kid": "rsa", "alg": "ES256"},
        {"kty": "EC", "kid": "rsa", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {},
        [],
        "key",
    ],
)
async def test_an_unfit_key_is_passed_over(provider: Any, trust: Trust, unfit: Any) -> None:
    """Keys that are weak, secret, private, broken or meant for something else verify nothing; the others do."""
    provider.documents["/jwks"] = {"keys": [unfit, provider.key.public_jwk()]}
    issuers = trust()
    assert await issuers.verify(token(provider))
    await assert_refused(issuers, rsa_token(provider))
