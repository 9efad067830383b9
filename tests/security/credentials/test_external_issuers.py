"""Threats T1, T2 and T4 for tokens of external identity providers, sent to a running gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from auth.tokens.jwks import MIN_INTERVAL_S
from auth.tokens.jws import generate_signing_key, load_signing_key
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.servers.identity_provider import IdentityProvider

OTHER = load_signing_key("ES256", generate_signing_key("ES256"))
UNREACHABLE = "http://127.0.0.1:1"

Call = Callable[[str], httpx.Response]


@pytest.fixture
def call(provider: IdentityProvider, new_gateway: Callable[..., Gateway]) -> Iterator[Call]:
    """A function that sends a token to a gateway that trusts the provider and an unreachable one, and logs no token."""
    issuers = [
        {"issuer": issuer, "audience": "atalaya", "scopes": {"land:read": "predict"}}
        for issuer in (provider.issuer, UNREACHABLE)
    ]
    gateway = new_gateway(AUTH__ISSUERS=json.dumps(issuers))
    with httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        yield lambda token: client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert "eyJ" not in gateway.complete_log()


def assert_rejected(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_headers_choose_no_key_and_no_algorithm(call: Call, provider: IdentityProvider) -> None:
    """T1: unsigned tokens, other algorithms, embedded keys and critical extensions are rejected for any key."""
    accepted = call(provider.token())
    assert (accepted.status_code, accepted.json()["subject"]) == (200, f"{provider.issuer}|ada")
    algorithms = ("none", "None", "nOnE", "HS256", "RS256", "ES384")
    extensions = {
        "jku": f"{UNREACHABLE}/jwks",
        "x5u": f"{UNREACHABLE}/cert",
        "x5c": ["MIIB"],
        "jwk": OTHER.public_jwk(),
        "crit": ["exp"],
    }
    headers = [{"alg": name} for name in algorithms] + [{name: value} for name, value in extensions.items()]
    for header in headers:
        for key in (provider.key, OTHER):
            assert_rejected(call(provider.token(key, header)))
    assert_rejected(call(provider.token(OTHER)))
    assert_rejected(call(f"{provider.token().rpartition('.')[0]}."))


def test_required_claims_audience_and_type_are_checked(call: Call, provider: IdentityProvider) -> None:
    """T2: a token without a required claim, of another type, for another time or another audience is rejected."""
    missing: list[dict[str, Any]] = [{name: ...} for name in ("aud", "exp", "iat", "sub")]
    wrong: list[dict[str, Any]] = [
        {"aud": "other"},
        {"exp": 1},
        {"iat": 2**32},
        {"nbf": 2**32},
        {"nonce": "n"},
        {"at_hash": "h"},
    ]
    for claims in [*missing, *wrong]:
        assert_rejected(call(provider.token(**claims)))
    for typ in ("rt+jwt", "logout+jwt", "", None):
        assert_rejected(call(provider.token(header={"typ": typ})))


def test_unusual_claims_are_client_errors(call: Call, provider: IdentityProvider) -> None:
    """T2: lone surrogates, NUL and control characters in claims get a 401 or are ignored, and cause no 500."""
    claims = ("name", "sub", "jti", "scope", "client_id", "azp", "email", "groups")
    for claim in claims:
        half: dict[str, Any] = {claim: "a\ud800"}
        control: dict[str, Any] = {claim: "a\0\x1b"}
        assert_rejected(call(provider.token(**half)))
        accepted = call(provider.token(**control))
        assert accepted.status_code == (401 if claim == "sub" else 200), claim
    assert call(provider.token(name="a\0b")).json()["name"] == "ada"


def test_times_types_and_key_ids_may_vary(call: Call, provider: IdentityProvider) -> None:
    """T2: fractional times, types in any case and a missing key id are accepted, as the RFCs allow."""
    now = time.time()
    assert call(provider.token(iat=now - 0.5, nbf=now - 0.5, exp=now + 60.5)).status_code == 200
    for typ in ("AT+JWT", "Application/at+jwt", "jwt"):
        assert call(provider.token(header={"typ": typ})).status_code == 200
    assert call(provider.token(header={"kid": ...})).status_code == 200
    assert_rejected(call(provider.token(OTHER, {"kid": ...})))


def test_a_wrong_final_slash_is_explained(call: Call, provider: IdentityProvider) -> None:
    """T2: the error for a token whose issuer differs from the configured one by a final slash says so."""
    refused = call(provider.token(iss=f"{provider.issuer}/"))
    assert_rejected(refused)
    assert "final slash" in refused.json()["detail"]


def test_unknown_key_ids_cause_one_fetch(call: Call, provider: IdentityProvider) -> None:
    """T4: 200 unknown key ids cause one fetch of the keys; an unreachable provider causes a 503 with Retry-After."""
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        tokens = [provider.token(header={"kid": f"k{number}"}) for number in range(200)]
        for response in pool.map(call, tokens):
            assert_rejected(response)
    most = 1 + int((time.monotonic() - started) / MIN_INTERVAL_S)  # more than one if a slow machine takes that long
    assert 1 <= provider.fetched.count("/jwks") <= most
    assert set(provider.fetched) == {"/.well-known/openid-configuration", "/jwks"}
    assert call(provider.token()).status_code == 200

    unavailable = call(provider.token(iss=UNREACHABLE))
    assert (unavailable.status_code, unavailable.json()["code"]) == (503, "issuer_unavailable")
    assert 1 <= int(unavailable.headers["retry-after"]) <= 30
