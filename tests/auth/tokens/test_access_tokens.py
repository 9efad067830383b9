from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.errors import ExpiredToken, InvalidToken
from auth.principal import ROLE_SCOPES, Principal, Role, Scope
from auth.tokens.access import TokenAuthority, TokenPolicy
from auth.tokens.jws import SigningAlgorithm, SigningKey, generate_signing_key, load_signing_key
from auth.tokens.keyring import Keyring

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


def b64(data: bytes | dict[str, Any] | str) -> str:
    if isinstance(data, dict):
        data = json.dumps(data)
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def without_ellipsis(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ...}


def signed(header: dict[str, Any] | str, claims: dict[str, Any] | str, key: SigningKey = KEY) -> str:
    """A token whose signature is right, whatever it says."""
    return sealed(f"{b64(header)}.{b64(claims)}", key)


def sealed(message: str, key: SigningKey = KEY) -> str:
    return f"{message}.{b64(key.private.sign(message.encode()))}"


def issue(authority: TokenAuthority = AUTHORITY) -> str:
    return authority.issue(subject="user-1", name="ada", role=Role.CLIENT, scopes={Scope.PREDICT}).access_token


def assert_refused(token: str, authority: TokenAuthority = AUTHORITY) -> None:
    with pytest.raises(InvalidToken) as refused:
        authority.verify(token)
    assert refused.value.code == "invalid_token"
    assert not token.strip(".") or token not in str(refused.value)
    assert refused.value.__context__ is None or refused.value.__suppress_context__


@pytest.mark.parametrize("algorithm", ["ES256", "HS256"])
def test_a_token_comes_back_as_the_principal_it_was_issued_for(algorithm: SigningAlgorithm) -> None:
    """Both algorithms carry id, name, role, scopes and expiry."""
    authority = TokenAuthority(Keyring(algorithm, generate_signing_key(algorithm)), POLICY, lambda: NOW)
    issued = authority.issue(subject="user-1", name="ada", role=Role.CLIENT, scopes=ROLE_SCOPES[Role.CLIENT])
    expires = datetime.fromtimestamp(int(NOW) + 900, UTC)
    assert issued.expires_in == 900
    assert issued.scopes == ROLE_SCOPES[Role.CLIENT]
    principal = Principal("user-1", "ada", Role.CLIENT, ROLE_SCOPES[Role.CLIENT], expires)
    found = authority.verify(issued.access_token)
    assert (found.subject, found.name, found.role, found.scopes, found.expires_at) == (
        principal.subject,
        principal.name,
        principal.role,
        principal.scopes,
        principal.expires_at,
    )


@settings(deadline=None)  # a busy machine is no failure
@given(role=st.sampled_from(Role), scopes=st.frozensets(st.sampled_from(Scope)), name=st.text(max_size=64))
def test_any_role_name_and_scopes_survive(role: Role, scopes: frozenset[Scope], name: str) -> None:
    """Issuing and verifying lose nothing."""
    principal = AUTHORITY.verify(AUTHORITY.issue(subject="s", name=name, role=role, scopes=scopes).access_token)
    assert (principal.role, principal.scopes, principal.name) == (role, scopes, name)


def test_a_token_holds_the_claims_of_rfc_9068() -> None:
    """The header holds alg, kid and typ only; no two tokens share a jti."""
    header, claims = [json.loads(base64.urlsafe_b64decode(p + "==")) for p in issue().split(".")[:2]]
    assert header == HEADER
    assert claims | {"jti": CLAIMS["jti"]} == CLAIMS
    assert issue() != issue()


def test_a_handmade_token_like_ours_is_accepted() -> None:
    """The forgeries below fail for what they change, not for how they are made."""
    assert AUTHORITY.verify(signed(HEADER, CLAIMS)).subject == "user-1"
    assert AUTHORITY.verify(signed(HEADER, CLAIMS | {"nbf": int(NOW), "private": [1]})).subject == "user-1"


@pytest.mark.parametrize("none", ["none", "None", "NONE", "nOnE", "none ", "", None, False, [], ["ES256"], ...])
@pytest.mark.parametrize("signature", ["", "AA", "right"])
def test_an_unsigned_token_is_refused(none: object, signature: str) -> None:
    """The algorithm `none` is refused in every spelling, with or without a signature."""
    token = signed(without_ellipsis(HEADER | {"alg": none}), CLAIMS)
    assert_refused(token if signature == "right" else f"{token.rpartition('.')[0]}.{signature}")


def public_key_spellings() -> list[bytes]:
    public = serialization.load_pem_public_key(pem := KEY.public.to_pem())
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return [pem, pem.strip(), der, json.dumps(KEY.public.to_dict()).encode()]


@pytest.mark.parametrize("secret", public_key_spellings())
@pytest.mark.parametrize("claimed", ["HS256", "ES256"])
def test_the_public_key_is_no_secret(secret: bytes, claimed: str) -> None:
    """A token signed with HMAC under the public key is refused."""
    message = f"{b64(HEADER | {'alg': claimed})}.{b64(CLAIMS)}"
    assert_refused(f"{message}.{b64(hmac.digest(secret, message.encode(), 'sha256'))}")


@pytest.mark.parametrize(
    "alg", ["HS256", "HS384", "HS512", "RS256", "PS256", "ES384", "ES512", "EdDSA", "dir", "es256"]
)
def test_another_algorithm_is_refused(alg: str) -> None:
    """One key, one algorithm: any other name is refused even over a right signature."""
    assert_refused(signed(HEADER | {"alg": alg}, CLAIMS))


def test_a_symmetric_gateway_takes_no_asymmetric_token() -> None:
    """A gateway in HS256 mode refuses ES256 tokens, also under its own kid."""
    key = load_signing_key("HS256", SECRET)
    symmetric = TokenAuthority(Keyring("HS256", SECRET), POLICY, lambda: NOW)
    assert symmetric.verify(signed({"alg": "HS256", "kid": key.kid, "typ": "at+jwt"}, CLAIMS, key))
    assert_refused(signed(HEADER | {"kid": key.kid}, CLAIMS), symmetric)
    assert_refused(signed({"alg": "HS256", "kid": key.kid, "typ": "at+jwt"}, CLAIMS), symmetric)


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
@pytest.mark.parametrize("key", [KEY, OTHER], ids=["our key", "their key"])
def test_a_header_that_brings_more_is_refused(extra: dict[str, Any], key: SigningKey) -> None:
    """Keys, key locations, critical extensions and compression in a header are refused, whoever signed."""
    assert_refused(signed(HEADER | extra, CLAIMS, key))


def test_another_key_is_refused() -> None:
    """A token of a foreign key is refused under its own kid and under ours."""
    assert_refused(signed(HEADER, CLAIMS, OTHER))
    assert_refused(signed(HEADER | {"kid": OTHER.kid}, CLAIMS, OTHER))


@pytest.mark.parametrize("kid", ["", "unknown", "../../etc/passwd", "' OR 1=1 --", None, 7, ...])
def test_an_unknown_kid_is_refused(kid: object) -> None:
    """A kid that is not our key's, or none, is refused: there is nowhere to fetch one from."""
    assert_refused(signed(without_ellipsis(HEADER | {"kid": kid}), CLAIMS))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "rt+jwt", "refresh+jwt", "AT+JWT", "", None, ...])
def test_a_token_of_another_type_is_refused(typ: object) -> None:
    """Only typ at+jwt is an access token."""
    assert_refused(signed(without_ellipsis(HEADER | {"typ": typ}), CLAIMS))


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_missing_claim_is_refused(claim: str) -> None:
    """Each claim is required."""
    assert_refused(signed(HEADER, without_ellipsis(CLAIMS | {claim: ...})))


@pytest.mark.parametrize("claim", [*CLAIMS, "nbf"])
@pytest.mark.parametrize("value", [None, True, [], {}, 1.5, -1, 10**400])
def test_a_claim_of_another_kind_is_refused(claim: str, value: object) -> None:
    """No claim is taken for something else than it is."""
    assert_refused(signed(HEADER, CLAIMS | {claim: value}))


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
def test_a_claim_with_a_wrong_value_is_refused(claim: str, value: object) -> None:
    """Foreign issuers and audiences, unknown scopes and roles, and times still to come are refused."""
    assert_refused(signed(HEADER, CLAIMS | {claim: value}))


@pytest.mark.parametrize("not_a_number", ["NaN", "Infinity", "-Infinity"])
def test_a_token_cannot_live_for_ever(not_a_number: str) -> None:
    """Numbers that JSON does not have are no expiry."""
    assert_refused(signed(HEADER, json.dumps(CLAIMS).replace(str(CLAIMS["exp"]), not_a_number)))


def test_a_token_expires() -> None:
    """A token is taken until its lifetime and the leeway are over, then it is called expired."""
    token = issue()
    TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: int(NOW) + 929.9).verify(token)
    with pytest.raises(ExpiredToken):
        TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: int(NOW) + 930).verify(token)


def test_clocks_may_differ_by_the_leeway() -> None:
    """A token that another process issued half a minute ahead is taken."""
    TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: int(NOW) - 30).verify(issue())
    assert_refused(issue(), TokenAuthority(Keyring("ES256", PEM), POLICY, clock=lambda: int(NOW) - 30.1))
    assert_refused(signed(HEADER, CLAIMS | {"nbf": int(NOW), "iat": int(NOW) + 31}))


def test_repeated_names_are_refused() -> None:
    """A header or claims that say one thing twice are refused, in either order."""
    for pair in ('"alg":"none","alg":"ES256"', '"alg":"ES256","alg":"none"'):
        assert_refused(signed(f'{{{pair},"kid":"{KEY.kid}","typ":"at+jwt"}}', CLAIMS))
    assert_refused(signed(HEADER, json.dumps(CLAIMS)[:-1] + ', "role": "admin"}'))


def test_only_the_compact_form_is_taken() -> None:
    """The JSON serialisations of RFC 7515, encrypted forms and detached payloads are refused."""
    protected, payload, signature = issue().split(".")
    flattened = {"payload": payload, "protected": protected, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}
    even = b64(json.dumps(CLAIMS).ljust(300))  # jose alone would skip the dot in it
    parted = sealed(f"{protected}.{even[:100]}.{even[100:]}")
    for token in (json.dumps(flattened), json.dumps(general), f"{protected}..{signature}", parted):
        assert_refused(token)


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a.b", "a.b.c", "é.é.é", "\ud800.a.b", "\0.\0.\0", "Bearer x"])
def test_noise_is_refused(token: str) -> None:
    """What is not a token at all is refused like a forged one."""
    assert_refused(token)


def test_no_second_spelling_of_a_token_is_taken() -> None:
    """Padding, white space and spare bits are refused."""
    header, claims, signature = (token := issue()).split(".")
    spare = signature[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[signature[-1]]
    for spelling in (f"{token}=", f"{token}==", f" {token}", f"{token}\n", f"{header}.{claims}.{spare}"):
        assert_refused(spelling)


def test_a_changed_token_is_refused() -> None:
    """The signature covers header and claims."""
    header, _, signature = issue().split(".")
    assert_refused(f"{header}.{b64(CLAIMS | {'role': 'admin'})}.{signature}")


def test_an_oversize_token_is_refused() -> None:
    """Tokens over 8192 characters are refused, though signed by us; just below they are read."""
    assert_refused(signed(HEADER, CLAIMS | {"padding": "x" * 6000}))
    AUTHORITY.verify(signed(HEADER, CLAIMS | {"padding": "x" * 5500}))


@pytest.mark.parametrize("text", ["[" * 5000, '{"alg":' * 800, "[]", "7", "null", '"text"', "{}", "{", "", "\ufeff{}"])
def test_what_is_no_object_is_refused(text: str) -> None:
    """Other JSON than objects, and nesting that exhausts the parser's stack, is refused as header and as claims."""
    assert_refused(signed(text, CLAIMS))
    assert_refused(signed(HEADER, text))
