"""The keys of an external issuer: discovery, caching and limiting the fetches."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from auth.errors import IssuerUnavailable
from auth.tokens.issuer_rules import is_safe_url
from auth.tokens.jwks import TIMEOUT_S, ProviderKeys
from tests.support.polling import PATIENCE_S

DISCOVERY = "/.well-known/openid-configuration"
TLS = ssl.create_default_context()  # shared, because loading the certificates takes longer than a test

OpenKeys = Callable[..., ProviderKeys]


@dataclass
class Clock:
    """A monotonic clock that the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def open_keys(provider: Any, clock: Clock) -> AsyncIterator[OpenKeys]:
    """A factory of `ProviderKeys` that have fetched nothing yet."""
    async with httpx.AsyncClient(verify=TLS, timeout=PATIENCE_S) as client:

        def make(issuer: str = provider.issuer) -> ProviderKeys:
            return ProviderKeys(issuer, ("ES256",), client, clock)

        yield make


async def assert_unknown(keys: ProviderKeys, kid: str = "unknown") -> None:
    with pytest.raises(ValueError, match="unknown kid"):
        await keys.find(kid, "ES256")


async def get_retry_after_s(keys: ProviderKeys, kid: str) -> int:
    with pytest.raises(IssuerUnavailable) as rejected:
        await keys.find(kid, "ES256")
    return rejected.value.retry_after_s


async def test_many_callers_make_one_fetch(provider: Any, open_keys: OpenKeys) -> None:
    """A hundred concurrent callers cause one fetch."""
    keys = open_keys()
    found = await asyncio.gather(*(keys.find(provider.key.kid, "ES256") for _ in range(100)))
    assert len(set(found)) == 1
    assert provider.fetched == [DISCOVERY, "/jwks"]


async def test_unknown_key_ids_cause_few_fetches(provider: Any, open_keys: OpenKeys, clock: Clock) -> None:
    """A thousand look-ups of unknown key ids in thirty seconds cause one fetch."""
    keys = open_keys()
    for begin in (1000.0, 1030.0, 1060.0):
        clock.now = begin
        await asyncio.gather(*(assert_unknown(keys, f"k{n}") for n in range(500)))
        clock.now = begin + 29.9
        await asyncio.gather(*(assert_unknown(keys, f"k{n}") for n in range(500)))
    assert provider.fetched.count("/jwks") == 3


async def test_rotated_keys_are_fetched(provider: Any, open_keys: OpenKeys, clock: Clock) -> None:
    """An unknown key id causes a fetch once thirty seconds have passed; keys that the provider withdrew are dropped."""
    keys, old = open_keys(), provider.key.kid
    await keys.find(old, "ES256")
    provider.rotate()
    clock.now += 30
    assert await keys.find(provider.key.kid, "ES256")
    await assert_unknown(keys, old)


async def test_old_keys_are_refreshed_in_the_background(provider: Any, open_keys: OpenKeys, clock: Clock) -> None:
    """After ten minutes the keys are fetched again, while requests still use the cached ones."""
    keys, old = open_keys(), provider.key.kid
    await keys.find(old, "ES256")
    provider.rotate()
    clock.now += 601
    assert await keys.find(old, "ES256")
    assert await keys.find(provider.key.kid, "ES256")
    await assert_unknown(keys, old)


async def test_keys_are_used_for_a_day_without_the_provider(provider: Any, open_keys: OpenKeys, clock: Clock) -> None:
    """Cached keys are used for a day while the provider is unavailable, and then no longer."""
    keys, kid = open_keys(), provider.key.kid
    await keys.find(kid, "ES256")
    provider.documents.clear()
    for _ in range(24):
        clock.now += 3600
        assert await keys.find(kid, "ES256")
    clock.now += 1
    assert 1 <= await get_retry_after_s(keys, kid) <= 30


async def test_without_any_keys_the_issuer_is_unavailable(provider: Any, open_keys: OpenKeys, clock: Clock) -> None:
    """Without any keys the error says when to try again; the next successful fetch recovers."""
    keys, documents = open_keys(), provider.documents
    provider.documents = {}
    assert await get_retry_after_s(keys, provider.key.kid) == 30
    provider.documents = documents
    clock.now += 29.5
    assert await get_retry_after_s(keys, provider.key.kid) == 1
    assert provider.fetched == [DISCOVERY]
    clock.now += 0.5
    assert await keys.find(provider.key.kid, "ES256")


async def test_a_refused_connection_makes_the_issuer_unavailable(open_keys: OpenKeys) -> None:
    """A refused connection makes the issuer unavailable."""
    with pytest.raises(IssuerUnavailable, match="cannot be reached"):
        await open_keys("http://127.0.0.1:1").find("k", "ES256")


async def test_a_cancelled_caller_does_not_cancel_the_fetch(provider: Any, open_keys: OpenKeys) -> None:
    """Cancelling one of two waiting callers leaves the fetch running for the other."""
    keys = open_keys()
    first = asyncio.create_task(keys.find(provider.key.kid, "ES256"))
    second = asyncio.create_task(keys.find(provider.key.kid, "ES256"))
    await asyncio.sleep(0)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert await second


async def test_closing_cancels_the_fetch(provider: Any, open_keys: OpenKeys) -> None:
    """Closing cancels the running fetch and the callers that wait for it."""
    keys = open_keys()
    waiting = asyncio.create_task(keys.find(provider.key.kid, "ES256"))
    await asyncio.sleep(0)
    await keys.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_issuer_may_end_with_a_slash(provider: Any, open_keys: OpenKeys) -> None:
    """A trailing slash, as in Auth0's issuers, is part of the name and is not doubled in the URL."""
    provider.documents[DISCOVERY]["issuer"] = f"{provider.issuer}/"
    assert await open_keys(f"{provider.issuer}/").find(provider.key.kid, "ES256")
    assert await get_retry_after_s(open_keys(provider.issuer), provider.key.kid)


async def test_a_slow_provider_times_out(open_keys: OpenKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that sends its response slowly is given five seconds, and is then unavailable."""
    monkeypatch.setattr("auth.tokens.jwks.TIMEOUT_S", TIMEOUT_S)  # instead of the tests' longer one
    disconnected = asyncio.Event()

    async def send_slowly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        disconnected.set()

    server = await asyncio.start_server(send_slowly, "127.0.0.1", 0)
    started = time.monotonic()
    async with server, asyncio.timeout(PATIENCE_S):
        assert await get_retry_after_s(open_keys(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), "k")
        assert time.monotonic() - started >= TIMEOUT_S == 5
        await disconnected.wait()


@pytest.mark.parametrize(
    ("path", "document"),
    [
        (DISCOVERY, None),
        (DISCOVERY, b""),
        (DISCOVERY, b"<html>"),
        (DISCOVERY, b"\xff\xfe\xfd"),
        (DISCOVERY, b"[" * 100_000),
        (DISCOVERY, b"{}" + b" " * 262_143),
        (DISCOVERY, []),
        (DISCOVERY, {"issuer": "https://other.example", "jwks_uri": "/jwks"}),
        ("/jwks", None),
        ("/jwks", {}),
        ("/jwks", {"keys": {}}),
        ("/jwks", {"keys": []}),
        ("/jwks", {"keys": [{"kty": "oct", "kid": "k", "k": "AAAA"}]}),
        ("/jwks", {"keys": [{}] * 101}),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_an_invalid_document_makes_the_issuer_unavailable(
    provider: Any, open_keys: OpenKeys, path: str, document: Any
) -> None:
    """A malformed or oversized document, or one of another issuer, counts as a failed fetch."""
    provider.documents[path] = document
    assert await get_retry_after_s(open_keys(), provider.key.kid)


@pytest.mark.parametrize("uri", ["http://id.example/jwks", "ftp://127.0.0.1/jwks", "/jwks", "file:///etc", 7, None])
async def test_keys_are_fetched_from_safe_addresses_only(provider: Any, open_keys: OpenKeys, uri: object) -> None:
    """Keys are fetched only over https, or from this machine if the issuer runs on it."""
    provider.documents[DISCOVERY]["jwks_uri"] = uri
    assert await get_retry_after_s(open_keys(), provider.key.kid)
    assert provider.fetched == [DISCOVERY]


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://id.example", True),
        ("https://id.example/tenant/", True),
        ("http://localhost:3000", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("http://id.example", False),
        ("http://127.0.0.1.id.example", False),
        ("http://169.254.169.254", False),
        ("https://", False),
        ("https://user@id.example", False),
        ("https://id.example#part", False),
        ("https://[", False),
        ("javascript:alert(1)", False),
        ("", False),
    ],
)
def test_only_https_is_allowed_beyond_this_machine(url: str, safe: bool) -> None:
    """A safe URL uses https; http is safe only for loopback addresses, and only if allowed."""
    assert is_safe_url(url, loopback=True) is safe
    assert is_safe_url(url, loopback=False) is (safe and url.startswith("https:"))
