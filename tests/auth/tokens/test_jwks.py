"""The keys of an outside identity provider: how they are found, kept, and how seldom they are asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from auth.errors import IssuerUnavailable
from auth.tokens.issuer_rules import is_safe_url
from auth.tokens.jwks import ProviderKeys

DISCOVERY = "/.well-known/openid-configuration"
TLS = ssl.create_default_context()  # reading the certificates takes longer than a test

Open = Callable[..., ProviderKeys]


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def open_keys(provider: Any, clock: Clock) -> AsyncIterator[Open]:
    """The provider's keys, nothing fetched yet."""
    async with httpx.AsyncClient(verify=TLS) as client:

        def make(issuer: str = provider.issuer) -> ProviderKeys:
            return ProviderKeys(issuer, ("ES256",), client, clock)

        yield make


async def unknown(keys: ProviderKeys, kid: str = "unknown") -> None:
    with pytest.raises(ValueError, match="unknown kid"):
        await keys.find(kid)


async def unavailable(keys: ProviderKeys, kid: str) -> int:
    with pytest.raises(IssuerUnavailable) as refused:
        await keys.find(kid)
    return refused.value.retry_after_s


async def test_many_callers_make_one_fetch(provider: Any, open_keys: Open) -> None:
    """However many tokens come at once and afterwards, the keys are fetched once."""
    keys = open_keys()
    found = await asyncio.gather(*(keys.find(provider.key.kid) for _ in range(100)))
    assert len(set(found)) == 1
    assert provider.fetched == [DISCOVERY, "/jwks"]


async def test_line_4_unknown_key_ids_cannot_cause_a_flood(provider: Any, open_keys: Open, clock: Clock) -> None:
    """A thousand unknown key ids cause one fetch in thirty seconds."""
    keys = open_keys()
    for begin in (1000.0, 1030.0, 1060.0):
        clock.now = begin
        await asyncio.gather(*(unknown(keys, f"k{n}") for n in range(500)))
        clock.now = begin + 29.9
        await asyncio.gather(*(unknown(keys, f"k{n}") for n in range(500)))
    assert provider.fetched.count("/jwks") == 3


async def test_rotation_is_noticed(provider: Any, open_keys: Open, clock: Clock) -> None:
    """A new key id is fetched at the next occasion, and what the provider has withdrawn is forgotten."""
    keys, old = open_keys(), provider.key.kid
    await keys.find(old)
    provider.rotate()
    clock.now += 30
    assert await keys.find(provider.key.kid)
    await unknown(keys, old)


async def test_old_keys_are_read_anew_beside_the_requests(provider: Any, open_keys: Open, clock: Clock) -> None:
    """After ten minutes the keys are fetched again, while the request that noticed is answered with those at hand."""
    keys, old = open_keys(), provider.key.kid
    await keys.find(old)
    provider.rotate()
    clock.now += 601
    assert await keys.find(old)
    assert await keys.find(provider.key.kid)
    await unknown(keys, old)


async def test_keys_outlive_an_outage_of_a_day(provider: Any, open_keys: Open, clock: Clock) -> None:
    """While the provider is away its keys go on counting for a day, then nothing does."""
    keys, kid = open_keys(), provider.key.kid
    await keys.find(kid)
    provider.documents.clear()
    for _ in range(24):
        clock.now += 3600
        assert await keys.find(kid)
    clock.now += 1
    assert 1 <= await unavailable(keys, kid) <= 30


async def test_a_provider_that_never_answered_is_unavailable(provider: Any, open_keys: Open, clock: Clock) -> None:
    """Without any keys callers hear when to come again; the next fetch heals it."""
    keys, documents = open_keys(), provider.documents
    provider.documents = {}
    assert await unavailable(keys, provider.key.kid) == 30
    provider.documents = documents
    clock.now += 29.5
    assert await unavailable(keys, provider.key.kid) == 1
    assert provider.fetched == [DISCOVERY]
    clock.now += 0.5
    assert await keys.find(provider.key.kid)


async def test_a_provider_that_is_gone_is_unavailable(open_keys: Open) -> None:
    """A refused connection is an outage like any other."""
    with pytest.raises(IssuerUnavailable, match="cannot be reached"):
        await open_keys("http://127.0.0.1:1").find("k")


async def test_a_caller_who_leaves_ends_nobody_elses_fetch(provider: Any, open_keys: Open) -> None:
    """The fetch belongs to all who wait for it."""
    keys = open_keys()
    first = asyncio.create_task(keys.find(provider.key.kid))
    second = asyncio.create_task(keys.find(provider.key.kid))
    await asyncio.sleep(0)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert await second


async def test_closing_ends_the_fetch(provider: Any, open_keys: Open) -> None:
    """Nothing is left running behind a gateway that stops."""
    keys = open_keys()
    waiting = asyncio.create_task(keys.find(provider.key.kid))
    await asyncio.sleep(0)
    await keys.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_issuer_may_end_with_a_slash(provider: Any, open_keys: Open) -> None:
    """Auth0's does: it belongs to the name, and the address has one slash all the same."""
    provider.documents[DISCOVERY]["issuer"] = f"{provider.issuer}/"
    assert await open_keys(f"{provider.issuer}/").find(provider.key.kid)
    assert await unavailable(open_keys(provider.issuer), provider.key.kid)


async def test_a_slow_provider_is_given_up(open_keys: Open) -> None:
    """A provider that drips its answer costs five seconds at most."""

    left = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        left.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server, asyncio.timeout(7):
        assert await unavailable(open_keys(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), "k")
        await left.wait()


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
async def test_an_unfit_document_is_not_believed(provider: Any, open_keys: Open, path: str, document: Any) -> None:
    """Broken, endless or foreign documents count as an outage."""
    provider.documents[path] = document
    assert await unavailable(open_keys(), provider.key.kid)


@pytest.mark.parametrize("uri", ["http://id.example/jwks", "ftp://127.0.0.1/jwks", "/jwks", "file:///etc", 7, None])
async def test_keys_come_from_a_safe_address(provider: Any, open_keys: Open, uri: object) -> None:
    """Keys are fetched by https alone, or within this machine for an issuer that is itself on it."""
    provider.documents[DISCOVERY]["jwks_uri"] = uri
    assert await unavailable(open_keys(), provider.key.kid)
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
def test_only_https_leaves_this_machine(url: str, safe: bool) -> None:
    """An https issuer cannot point at this machine's own http services."""
    assert is_safe_url(url, loopback=True) is safe
    assert is_safe_url(url, loopback=False) is (safe and url.startswith("https:"))
