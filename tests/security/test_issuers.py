"""Lines 1, 2 and 4 for outside identity providers, on a running gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from auth.tokens.jws import generate_signing_key, load_signing_key

OTHER = load_signing_key("ES256", generate_signing_key("ES256"))
AWAY = "http://127.0.0.1:1"

Call = Callable[..., httpx.Response]


@pytest.fixture
def call(provider: Any, new_gateway: Callable[..., Any]) -> Iterator[Call]:
    """Ask a gateway that trusts the provider, and another that is away, who a token stands for."""
    rules = {"audience": "atalaya", "scopes": {"land:read": "predict"}}
    issuers = [{"issuer": issuer, **rules} for issuer in (provider.issuer, AWAY)]
    gateway = new_gateway(AUTH__ISSUERS=json.dumps(issuers))
    with httpx.Client(base_url=gateway.base_url, timeout=30) as client:
        yield lambda token, path="/v1/me": client.get(path, headers={"Authorization": f"Bearer {token}"})
    assert "eyJ" not in gateway.log()


def assert_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_line_01_headers_choose_no_key_and_no_algorithm(call: Call, provider: Any) -> None:
    """Unsigned tokens, other algorithms, keys brought along and critical extensions are refused, whoever signed."""
    accepted = call(provider.token())
    assert (accepted.status_code, accepted.json()["subject"]) == (200, f"{provider.issuer}|ada")
    algorithms = ("none", "None", "nOnE", "HS256", "RS256", "ES384")
    brought = {
        "jku": f"{AWAY}/jwks",
        "x5u": f"{AWAY}/cert",
        "x5c": ["MIIB"],
        "jwk": OTHER.public_jwk(),
        "crit": ["exp"],
    }
    headers = [{"alg": name} for name in algorithms] + [{name: value} for name, value in brought.items()]
    for header in headers:
        for key in (provider.key, OTHER):
            assert_refused(call(provider.token(key, header)))
    assert_refused(call(provider.token(OTHER)))
    assert_refused(call(f"{provider.token().rpartition('.')[0]}."))


def test_line_02_an_access_token_says_all_that_it_must(call: Call, provider: Any) -> None:
    """A token without a required claim, of another kind or for another audience is refused."""
    missing = [{name: ...} for name in ("aud", "exp", "iat", "sub")]
    wrong = [{"aud": "other"}, {"exp": 1}, {"iat": 2**32}, {"nbf": 2**32}, {"nonce": "n"}, {"at_hash": "h"}]
    for claims in missing + wrong:
        assert_refused(call(provider.token(**claims)))
    for typ in ("rt+jwt", "logout+jwt", "", None):
        assert_refused(call(provider.token(header={"typ": typ})))


def test_line_04_unknown_keys_cause_no_flood(call: Call, provider: Any) -> None:
    """Two hundred unknown key ids at once are refused after one fetch; a provider that is away is a 503 at once."""
    with ThreadPoolExecutor(16) as pool:
        tokens = [provider.token(header={"kid": f"k{number}"}) for number in range(200)]
        for answer in pool.map(call, tokens):
            assert_refused(answer)
    assert provider.fetched == ["/.well-known/openid-configuration", "/jwks"]
    assert call(provider.token()).status_code == 200

    away = call(provider.token(iss=AWAY))
    assert (away.status_code, away.json()["code"]) == (503, "issuer_unavailable")
    assert 1 <= int(away.headers["retry-after"]) <= 30
