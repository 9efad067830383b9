"""Verifying tokens of external issuers, and reading their keys."""

from __future__ import annotations

import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from jose import jwk

from auth.errors import ExpiredToken, InvalidToken
from auth.principal import ROLE_SCOPES, Role, Scope
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.jws import generate_signing_key, load_signing_key
from tests.support.servers.identity_provider import NOW, MakeIssuers, encode_part, token

ROLES = {"operators": Role.OPERATOR, "staff": Role.CLIENT}
UNKNOWN_KIDS: list[Any] = ["", "unknown", "../jwks", None, 7, []]
OTHER = load_signing_key("ES256", generate_signing_key("ES256"))
RSA_KEY = rsa.generate_private_key(65537, 2048)
P384_PEM = (
    ec.generate_private_key(ec.SECP384R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)
P384 = jwk.construct(P384_PEM, "ES384").to_dict()


def make_rsa_token(provider: Any, header: dict[str, Any] | None = None) -> str:
    protected = encode_part({"alg": "RS256", "kid": "rsa", "typ": "JWT", **(header or {})})
    message = f"{protected}.{token(provider).split('.')[1]}"
    return f"{message}.{encode_part(RSA_KEY.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def make_rsa_jwk(key: rsa.RSAPrivateKey = RSA_KEY, **members: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    n = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)
    document = {"kty": "RSA", "kid": "rsa", "n": encode_part(n), "e": "AQAB", **members}
    return {name: value for name, value in document.items() if value is not ...}


async def assert_rejected(issuers: ExternalIssuers, credential: str, error: type[Exception] = InvalidToken) -> None:
    with pytest.raises(error) as rejected:
        await issuers.verify(credential)
    assert credential not in str(rejected.value)


async def test_a_token_authenticates_a_principal_of_its_issuer(provider: Any, make_issuers: MakeIssuers) -> None:
    """Subjects contain the issuer, so that the subjects of two issuers never collide."""
    verified = await make_issuers().verify(token(provider, name="Ada", jti="j1"))
    principal = verified.principal
    assert principal.subject == f"{provider.issuer}|ada"
    assert (principal.name, principal.role) == ("Ada", None)
    assert principal.scopes == {Scope.PREDICT}
    assert principal.expires_at == datetime.fromtimestamp(NOW + 900, UTC)
    assert principal.token_id == "j1"
    assert verified.valid_until == NOW + 60


async def test_only_configured_issuers_are_accepted(provider: Any, make_issuers: MakeIssuers) -> None:
    """A credential of another issuer, or in another form, is left to the other verifiers."""
    issuers = make_issuers()
    assert issuers.accepts(token(provider))
    for credential in (
        token(provider, iss="https://other.example"),
        token(provider, iss=["a"]),
        token(provider, iss=...),
    ):
        assert not issuers.accepts(credential)
    for noise in ("", "a.b.c", "atl_1_2", "\ud800.a.b", f"{encode_part(b'[' * 5000)}.{encode_part(b'[' * 5000)}.x"):
        assert not issuers.accepts(noise)


@pytest.mark.parametrize(
    "header",
    [
        *({"alg": alg} for alg in ("none", "None", "nOnE", "", None, ["ES256"], ...)),
        *({"alg": alg} for alg in ("HS256", "ES384", "RS256", "PS256", "EdDSA", "es256")),
        *({"typ": typ} for typ in ("rt+jwt", "logout+jwt", "text/jwt", "at+\u212awt", "", None, ["JWT"])),
        *({"kid": kid} for kid in UNKNOWN_KIDS),
        {"jwk": OTHER.public_jwk()},
        {"jku": "https://attacker.example/jwks"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"zip": "DEF"},
    ],
    ids=lambda header: "jwk" if "jwk" in header else str(header),
)
async def test_untrusted_headers_are_rejected(provider: Any, make_issuers: MakeIssuers, header: dict[str, Any]) -> None:
    """Other algorithms and types, and keys and key locations in a header are rejected, whichever key signed."""
    issuers = make_issuers()
    await assert_rejected(issuers, token(provider, header=header))
    await assert_rejected(issuers, token(provider, OTHER, header))


async def test_the_public_key_is_rejected_as_an_hmac_secret(provider: Any, make_issuers: MakeIssuers) -> None:
    """A token signed with HMAC, with the provider's public key as the secret, is rejected."""
    protected = encode_part({"alg": "HS256", "kid": provider.key.kid, "typ": "at+jwt"})
    message = f"{protected}.{token(provider).split('.')[1]}"
    for secret in (provider.key.public.to_pem(), json.dumps(provider.key.public_jwk()).encode()):
        signature = encode_part(hmac.digest(secret, message.encode(), "sha256"))
        await assert_rejected(make_issuers(), f"{message}.{signature}")


async def test_wrong_signatures_are_rejected(provider: Any, make_issuers: MakeIssuers) -> None:
    """A signature by another key is rejected, and so is a changed or missing one."""
    credential = token(provider)
    for forged in (
        token(provider, OTHER),
        f"{credential.rpartition('.')[0]}.",
        f"{credential}=",
        f"{credential}\n",
        credential[:-4] + "AAAA",
    ):
        await assert_rejected(make_issuers(), forged)


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt", "JWT", "jwt", ...])
async def test_access_token_types_are_accepted(provider: Any, make_issuers: MakeIssuers, typ: str) -> None:
    """The types of RFC 9068 and JWT are accepted in any case, and so is a missing type, because providers differ."""
    assert (await make_issuers().verify(token(provider, header={"typ": typ, "x5t": "x"}))).principal.name == "ada"


@pytest.mark.parametrize("claim", ["aud", "exp", "iat", "sub"])
@pytest.mark.parametrize("value", [..., None, True, [], {}, -1, 1e300, float("nan"), float("inf"), ""], ids=str)
async def test_required_claims_of_the_wrong_type_are_rejected(
    provider: Any, make_issuers: MakeIssuers, claim: str, value: Any
) -> None:
    """A token whose required claim is missing or of the wrong type is rejected."""
    await assert_rejected(make_issuers(), token(provider, **{claim: value}))


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
async def test_a_wrong_claim_is_rejected(provider: Any, make_issuers: MakeIssuers, claim: str, value: Any) -> None:
    """Other audiences, future times, unprintable subjects and ID tokens are rejected."""
    await assert_rejected(make_issuers(), token(provider, **{claim: value}))


async def test_a_token_expires(provider: Any, make_issuers: MakeIssuers) -> None:
    """The leeway is configured per issuer, and no token is cached beyond its expiry."""
    await assert_rejected(make_issuers(leeway_s=0), token(provider, exp=NOW), ExpiredToken)
    assert (await make_issuers(leeway_s=10).verify(token(provider, exp=NOW - 9))).valid_until == NOW - 9
    await assert_rejected(make_issuers(leeway_s=10), token(provider, exp=NOW - 10), ExpiredToken)


async def test_one_of_several_audiences_is_enough(provider: Any, make_issuers: MakeIssuers) -> None:
    """A token with several audiences, as Auth0 issues them, is accepted if one of them is right."""
    assert await make_issuers().verify(token(provider, aud=["https://x.example/userinfo", "atalaya"]))


@pytest.mark.parametrize(
    ("rules", "claims", "role", "scopes"),
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
async def test_only_mapped_values_grant_scopes(
    provider: Any,
    make_issuers: MakeIssuers,
    rules: dict[str, Any],
    claims: dict[str, Any],
    role: Role | None,
    scopes: set[Scope],
) -> None:
    """Claims grant the scopes that the setting maps them to; a role and scopes together grant their intersection."""
    principal = (await make_issuers(**rules).verify(token(provider, **claims))).principal
    assert principal.role == role
    assert principal.scopes == scopes


async def test_a_key_without_an_algorithm_gets_the_first_that_fits(provider: Any, make_issuers: MakeIssuers) -> None:
    """An RSA key that names no algorithm is used with the first configured RSA algorithm, and with no other."""
    provider.documents["/jwks"] = {"keys": [make_rsa_jwk()]}
    issuers = make_issuers(algorithms=("ES256", "RS256", "RS384"))
    assert (await issuers.verify(make_rsa_token(provider))).principal.name == "ada"
    await assert_rejected(issuers, make_rsa_token(provider, {"alg": "RS384"}))
    await assert_rejected(issuers, make_rsa_token(provider, {"alg": "ES256"}))
    await assert_rejected(make_issuers(algorithms=("ES256",)), make_rsa_token(provider))


@pytest.mark.parametrize(
    "unusable",
    [
        make_rsa_jwk(alg="RS384"),
        make_rsa_jwk(alg="RSA-OAEP"),
        make_rsa_jwk(use="enc"),
        make_rsa_jwk(key_ops=["encrypt"]),
        make_rsa_jwk(key_ops=7),
        make_rsa_jwk(d="AQAB"),
        make_rsa_jwk(rsa.generate_private_key(65537, 1024)),  # noqa: S505
        make_rsa_jwk(n="AQAB"),
        make_rsa_jwk(n=encode_part(b"\xff" * 1025)),
        make_rsa_jwk(n="?"),
        make_rsa_jwk(n=7),
        make_rsa_jwk(e=...),
        make_rsa_jwk(e=""),
        make_rsa_jwk(e="Ag"),
        make_rsa_jwk(kty="EC", crv="P-256"),
        make_rsa_jwk(kty=["RSA"]),
        make_rsa_jwk(kid=7),
        {"kty": "oct", "kid": "rsa", "k": "AAAA"},
        P384 | {"kid": "rsa"},
        P384 | {"kid": "rsa", "alg": "ES256"},
        {"kty": "EC", "kid": "rsa", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {},
        [],
        "key",
    ],
)
async def test_unusable_keys_are_skipped(provider: Any, make_issuers: MakeIssuers, unusable: Any) -> None:
    """Weak, symmetric, private and malformed keys and keys for other purposes are skipped; the other keys are used."""
    provider.documents["/jwks"] = {"keys": [unusable, provider.key.public_jwk()]}
    issuers = make_issuers()
    assert await issuers.verify(token(provider))
    await assert_rejected(issuers, make_rsa_token(provider))
