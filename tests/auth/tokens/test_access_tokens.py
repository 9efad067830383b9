"""Issuing and verifying access tokens, and rejecting forged ones."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from auth.errors import ExpiredToken, InvalidToken
from auth.principal import ROLE_SCOPES, Role, Scope
from auth.tokens.access import TokenAuthority, TokenPolicy
from auth.tokens.jws import SigningAlgorithm, SigningKey, generate_signing_key, load_signing_key
from auth.tokens.keyring import Keyring
from tests.support.servers.identity_provider import encode_part

NOW = 1_800_000_000.5
POLICY = TokenPolicy(issuer="https://atalaya.example", audience="atalaya", lifetime_s=900)
PEM = generate_signing_key("ES256")
SECRET = generate_signing_key("HS256")
KEY = load_signing_key("ES256", PEM)
AUTHORITY = TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: NOW)
HEADER = {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}
CLAIMS = {
    "iss": POLICY.issuer,
    "aud": POLICY.audience,
    "exp": int(NOW) + 900,
    "iat": int(NOW),
    "jti": "f" * 32,
    "sub": "user-1",
    "client_id": "atalaya-first-party",
    "scope": "predict",
    "name": "ada",
    "role": "client",
}


def sign_token(header: dict[str, Any] | str, claims: dict[str, Any] | str, key: SigningKey = KEY) -> str:
    """Return a token with a valid signature."""
    return sign_message(f"{encode_part(header)}.{encode_part(claims)}", key)


def sign_message(message: str, key: SigningKey = KEY) -> str:
    return f"{message}.{encode_part(key.private.sign(message.encode()))}"


def issue(authority: TokenAuthority = AUTHORITY) -> str:
    return authority.issue(subject="user-1", name="ada", role=Role.CLIENT, scopes={Scope.PREDICT}).access_token


def assert_rejected(token: str, authority: TokenAuthority = AUTHORITY) -> None:
    with pytest.raises(InvalidToken) as rejected:
        authority.verify(token)
    assert rejected.value.code == "invalid_token"
    assert not token.strip(".") or token not in str(rejected.value)
    assert rejected.value.__context__ is None or rejected.value.__suppress_context__


@pytest.mark.parametrize("algorithm", ["ES256", "HS256"])
def test_a_token_verifies_as_the_principal_it_was_issued_for(algorithm: SigningAlgorithm) -> None:
    """With both algorithms a token preserves id, name, role, scopes and expiry."""
    authority = TokenAuthority(Keyring(algorithm, generate_signing_key(algorithm)), POLICY, lambda: NOW)
    issued = authority.issue(subject="user-1", name="ada", role=Role.CLIENT, scopes=ROLE_SCOPES[Role.CLIENT])
    expires = datetime.fromtimestamp(int(NOW) + 900, UTC)
    assert issued.expires_in == 900
    assert issued.scopes == ROLE_SCOPES[Role.CLIENT]
    principal = authority.verify(issued.access_token)
    assert (principal.subject, principal.name, principal.role) == ("user-1", "ada", Role.CLIENT)
    assert (principal.scopes, principal.expires_at) == (ROLE_SCOPES[Role.CLIENT], expires)


@given(role=st.sampled_from(Role), scopes=st.frozensets(st.sampled_from(Scope)), name=st.text(max_size=64))
def test_any_role_name_and_scopes_are_preserved(role: Role, scopes: frozenset[Scope], name: str) -> None:
    """Issuing and verifying preserve any role, scopes and name."""
    principal = AUTHORITY.verify(AUTHORITY.issue(subject="s", name=name, role=role, scopes=scopes).access_token)
    assert (principal.role, principal.scopes, principal.name) == (role, scopes, name)


def test_a_token_contains_the_claims_of_rfc_9068() -> None:
    """The header contains only alg, kid and typ, and every token has its own jti."""
    header, claims = [json.loads(base64.urlsafe_b64decode(p + "==")) for p in issue().split(".")[:2]]
    assert header == HEADER
    assert claims | {"jti": CLAIMS["jti"]} == CLAIMS
    assert issue() != issue()


def test_a_token_made_by_the_tests_is_accepted() -> None:
    """Tokens made by the tests are accepted, so that the forgeries below are rejected for what they change."""
    assert AUTHORITY.verify(sign_token(HEADER, CLAIMS)).subject == "user-1"
    assert AUTHORITY.verify(sign_token(HEADER, CLAIMS | {"nbf": int(NOW), "private": [1]})).subject == "user-1"


@pytest.mark.parametrize("none", ["none", "None", "NONE", "nOnE", "none ", "", None, False, [], ["ES256"], ...])
@pytest.mark.parametrize("signature", ["", "AA", "right"])
def test_an_unsigned_token_is_rejected(none: object, signature: str) -> None:
    """The algorithm `none` is rejected in every spelling, with or without a signature."""
    token = sign_token(HEADER | {"alg": none}, CLAIMS)
    assert_rejected(token if signature == "right" else f"{token.rpartition('.')[0]}.{signature}")


def encode_public_key() -> list[bytes]:
    public = serialization.load_pem_public_key(pem := KEY.public.to_pem())
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return [pem, pem.strip(), der, json.dumps(KEY.public.to_dict()).encode()]


@pytest.mark.parametrize("secret", encode_public_key(), ids=["pem", "stripped pem", "der", "jwk"])
@pytest.mark.parametrize("claimed", ["HS256", "ES256"])
def test_the_public_key_is_rejected_as_an_hmac_secret(secret: bytes, claimed: str) -> None:
    """A token signed with HMAC, with the public key as the secret, is rejected."""
    message = f"{encode_part(HEADER | {'alg': claimed})}.{encode_part(CLAIMS)}"
    assert_rejected(f"{message}.{encode_part(hmac.digest(secret, message.encode(), 'sha256'))}")


@pytest.mark.parametrize(
    "alg", ["HS256", "HS384", "HS512", "RS256", "PS256", "ES384", "ES512", "EdDSA", "dir", "es256"]
)
def test_another_algorithm_is_rejected(alg: str) -> None:
    """Any algorithm but the key's own is rejected, even with a valid signature."""
    assert_rejected(sign_token(HEADER | {"alg": alg}, CLAIMS))


def test_an_hs256_gateway_rejects_es256_tokens() -> None:
    """A gateway with an HS256 key rejects ES256 tokens, even under its own kid."""
    key = load_signing_key("HS256", SECRET)
    symmetric = TokenAuthority(Keyring("HS256", SECRET), POLICY, lambda: NOW)
    assert symmetric.verify(sign_token({"alg": "HS256", "kid": key.kid, "typ": "at+jwt"}, CLAIMS, key))
    assert_rejected(sign_token(HEADER | {"kid": key.kid}, CLAIMS), symmetric)
    assert_rejected(sign_token({"alg": "HS256", "kid": key.kid, "typ": "at+jwt"}, CLAIMS), symmetric)


OTHER = load_signing_key("ES256", generate_signing_key("ES256"))


@pytest.mark.parametrize(
    "extra",
    [
        {"jwk": OTHER.public.to_dict()},
        {"jku": "https://attacker.example/jwks.json"},
        {"x5u": "https://attacker.example/cert.pem"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"crit": ["unknown"], "unknown": True},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"cty": "JWT"},
    ],
    ids="+".join,
)
@pytest.mark.parametrize("key", [KEY, OTHER], ids=["own key", "other key"])
def test_additional_headers_are_rejected(extra: dict[str, Any], key: SigningKey) -> None:
    """Keys, key locations, critical extensions and compression in a header are rejected, whichever key signed."""
    assert_rejected(sign_token(HEADER | extra, CLAIMS, key))


def test_another_key_is_rejected() -> None:
    """A token of another key is rejected under its own kid and under the gateway's."""
    assert_rejected(sign_token(HEADER, CLAIMS, OTHER))
    assert_rejected(sign_token(HEADER | {"kid": OTHER.kid}, CLAIMS, OTHER))


@pytest.mark.parametrize("kid", ["", "unknown", "../../etc/passwd", "' OR 1=1 --", None, 7, ...])
def test_an_unknown_kid_is_rejected(kid: object) -> None:
    """A token whose kid is missing or is not the gateway's is rejected."""
    assert_rejected(sign_token(HEADER | {"kid": kid}, CLAIMS))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "rt+jwt", "refresh+jwt", "AT+JWT", "", None, ...])
def test_a_token_of_another_type_is_rejected(typ: object) -> None:
    """Only tokens with the type at+jwt are accepted."""
    assert_rejected(sign_token(HEADER | {"typ": typ}, CLAIMS))


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_missing_claim_is_rejected(claim: str) -> None:
    """A token that lacks one of the claims is rejected."""
    assert_rejected(sign_token(HEADER, CLAIMS | {claim: ...}))


@pytest.mark.parametrize("claim", [*CLAIMS, "nbf"])
@pytest.mark.parametrize("value", [None, True, [], {}, 1.5, -1, 10**400])
def test_a_claim_of_the_wrong_type_is_rejected(claim: str, value: object) -> None:
    """A claim of the wrong type is never converted."""
    assert_rejected(sign_token(HEADER, CLAIMS | {claim: value}))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "https://attacker.example"),
        ("iss", POLICY.issuer + "/"),
        ("aud", "another"),
        ("aud", [POLICY.audience]),
        ("aud", [POLICY.audience, "another"]),
        ("scope", "predict everything"),
        ("scope", "PREDICT"),
        ("role", "root"),
        ("role", "Admin"),
        ("iat", int(NOW) + 31),
        ("nbf", int(NOW) + 31),
        ("exp", 2**33),
        ("exp", str(int(NOW) + 900)),
    ],
)
def test_a_claim_with_a_wrong_value_is_rejected(claim: str, value: object) -> None:
    """Other issuers and audiences, unknown scopes and roles, and future times are rejected."""
    assert_rejected(sign_token(HEADER, CLAIMS | {claim: value}))


@pytest.mark.parametrize("not_a_number", ["NaN", "Infinity", "-Infinity"])
def test_an_infinite_expiry_is_rejected(not_a_number: str) -> None:
    """NaN and infinity, which JSON does not define, are rejected as expiry."""
    assert_rejected(sign_token(HEADER, json.dumps(CLAIMS).replace(str(CLAIMS["exp"]), not_a_number)))


def test_a_token_expires() -> None:
    """A token is accepted until its lifetime and the leeway are over, and then raises ExpiredToken."""
    token = issue()
    TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: int(NOW) + 929.9).verify(token)
    with pytest.raises(ExpiredToken):
        TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: int(NOW) + 930).verify(token)


def test_clocks_may_differ_by_the_leeway() -> None:
    """A token from a process whose clock is half a minute ahead is accepted; one from further ahead is rejected."""
    TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: int(NOW) - 30).verify(issue())
    assert_rejected(issue(), TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: int(NOW) - 30.1))
    assert_rejected(sign_token(HEADER, CLAIMS | {"nbf": int(NOW), "iat": int(NOW) + 31}))


def test_repeated_names_are_rejected() -> None:
    """A header or claims with a repeated name are rejected, in either order."""
    for pair in ('"alg":"none","alg":"ES256"', '"alg":"ES256","alg":"none"'):
        assert_rejected(sign_token(f'{{{pair},"kid":"{KEY.kid}","typ":"at+jwt"}}', CLAIMS))
    assert_rejected(sign_token(HEADER, json.dumps(CLAIMS)[:-1] + ', "role": "admin"}'))


def test_only_the_compact_form_is_accepted() -> None:
    """The JSON serialisations of RFC 7515, encrypted forms and detached payloads are rejected."""
    protected, payload, signature = issue().split(".")
    flattened = {"payload": payload, "protected": protected, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}
    even = encode_part(json.dumps(CLAIMS).ljust(300))  # jose alone would ignore a dot inside it
    four_parts = sign_message(f"{protected}.{even[:100]}.{even[100:]}")
    for token in (json.dumps(flattened), json.dumps(general), f"{protected}..{signature}", four_parts):
        assert_rejected(token)


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a.b", "a.b.c", "é.é.é", "\ud800.a.b", "\0.\0.\0", "Bearer x"])
def test_malformed_text_is_rejected(token: str) -> None:
    """Text that is not a token is rejected like a forged token."""
    assert_rejected(token)


def test_a_token_has_one_encoding() -> None:
    """Padding, white space and non-zero spare bits are rejected."""
    header, claims, signature = (token := issue()).split(".")
    spare = signature[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[signature[-1]]
    for spelling in (f"{token}=", f"{token}==", f" {token}", f"{token}\n", f"{header}.{claims}.{spare}"):
        assert_rejected(spelling)


def test_a_changed_token_is_rejected() -> None:
    """A token with changed claims is rejected, because the signature covers them."""
    header, _, signature = issue().split(".")
    assert_rejected(f"{header}.{encode_part(CLAIMS | {'role': 'admin'})}.{signature}")


def test_an_oversized_token_is_rejected() -> None:
    """Validly signed tokens over 8192 characters are rejected, slightly shorter ones accepted."""
    assert_rejected(sign_token(HEADER, CLAIMS | {"padding": "x" * 6000}))
    AUTHORITY.verify(sign_token(HEADER, CLAIMS | {"padding": "x" * 5500}))


@pytest.mark.parametrize("text", ["[" * 5000, '{"alg":' * 800, "[]", "7", "null", '"text"', "{}", "{", "", "\ufeff{}"])
def test_json_that_is_no_object_is_rejected(text: str) -> None:
    """JSON other than objects, and nesting beyond the parser's stack, is rejected as header and as claims."""
    assert_rejected(sign_token(text, CLAIMS))
    assert_rejected(sign_token(HEADER, text))
