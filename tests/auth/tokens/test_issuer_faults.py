"""Error messages and log entries when the documents of an external issuer cannot be used."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from auth.errors import IssuerUnavailable
from tests.support.servers.identity_provider import IdentityProvider, MakeIssuers, token

DISCOVERY, KEYS = "/.well-known/openid-configuration", "/jwks"
P384_ONLY = {"keys": [{"kty": "EC", "crv": "P-384", "kid": "k", "x": "AQ", "y": "AQ"}]}


async def explain(issuers: Any, credential: str) -> tuple[str, list[Any]]:
    """Return the error message that the caller gets, and the log entries."""
    with capture_logs() as logged, pytest.raises(IssuerUnavailable) as unavailable:
        await issuers.verify(credential)
    assert unavailable.value.retry_after_s >= 1
    return str(unavailable.value), logged


@pytest.mark.parametrize(
    ("path", "document", "reason"),
    [
        (DISCOVERY, None, "its discovery document has the status 404"),
        (DISCOVERY, b"<html>", "its discovery document is not a JSON object"),
        (DISCOVERY, [], "its discovery document is not a JSON object"),
        (DISCOVERY, b"{}" + b" " * 262_143, "its discovery document has more than 262144 bytes"),
        (DISCOVERY, {"issuer": "https://other.example"}, "name different issuers"),
        (DISCOVERY, {}, "name different issuers"),
        (KEYS, None, "its key set has the status 404"),
        (KEYS, {}, "its key set has no list of at most 100 keys"),
        (KEYS, {"keys": []}, "none of its keys fits the algorithms RS256, ES256"),
        (KEYS, P384_ONLY, "none of its keys fits the algorithms RS256, ES256"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_an_unusable_document_is_named(
    provider: IdentityProvider, make_issuers: MakeIssuers, path: str, document: Any, reason: str
) -> None:
    """The error and the log name the document and its fault, and do not say that the provider cannot be reached."""
    provider.documents[path] = document
    message, logged = await explain(make_issuers(), token(provider))
    assert reason in message
    assert "reached" not in message
    (entry,) = logged
    assert (entry["event"], entry["issuer"]) == ("issuer_unusable", provider.issuer)
    assert reason in entry["reason"]


async def test_a_wrong_final_slash_is_named(provider: IdentityProvider, make_issuers: MakeIssuers) -> None:
    """If the discovery document's issuer differs only by a final slash, the error says so and the log shows it."""
    provider.documents[DISCOVERY]["issuer"] = f"{provider.issuer}/"
    message, (entry,) = await explain(make_issuers(), token(provider))
    assert "AUTH__ISSUERS and its discovery document differ in the issuer's final slash" in message
    assert entry["detail"] == repr(f"{provider.issuer}/")


async def test_an_unsafe_key_address_is_named(provider: IdentityProvider, make_issuers: MakeIssuers) -> None:
    """A key set address without https is reported, and only the log shows the address."""
    provider.documents[DISCOVERY]["jwks_uri"] = "http://id.example/jwks"
    message, (entry,) = await explain(make_issuers(), token(provider))
    assert "names no https address for the keys" in message
    assert "id.example" not in message
    assert "id.example" in entry["detail"]


async def test_an_unreachable_issuer_is_reported_as_such(make_issuers: MakeIssuers, provider: IdentityProvider) -> None:
    """A provider that refuses the connection is reported as unreachable."""
    unreachable = "http://127.0.0.1:1"
    message, (entry,) = await explain(make_issuers(issuer=unreachable), token(provider, iss=unreachable))
    assert "cannot be reached" in message
    assert (entry["event"], entry["reason"]) == ("issuer_unreachable", "ConnectError")


async def test_a_corrected_document_ends_the_fault(
    provider: IdentityProvider, make_issuers: MakeIssuers, clock: list[float]
) -> None:
    """After the provider's document is corrected, tokens are accepted."""
    keys = provider.documents[KEYS]
    provider.documents[KEYS] = {}
    issuers = make_issuers()
    await explain(issuers, token(provider))
    provider.documents[KEYS] = keys
    clock[0] += 31
    assert await issuers.verify(token(provider))
