"""The keys of an outside identity provider: found by OpenID Connect Discovery 1.0, and kept while it is away."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

from auth.errors import IssuerUnavailable
from auth.tokens.issuer_rules import is_safe_url
from auth.tokens.jws import VerificationKey, load_verification_key

if TYPE_CHECKING:
    import httpx

FRESH_S = 600  # older keys are read anew beside the requests that use them
KEPT_S = 86_400  # still older ones are not believed any more
PAUSE_S = 30  # between two fetches, whatever asks for them
TIMEOUT_S = 5
MAX_BYTES = 262_144
MAX_KEYS = 100

log = structlog.get_logger("atalaya.issuers")


class ProviderKeys:
    """The public keys of one issuer; `clock` tells seconds that never go back.

    Whatever callers send, the provider is asked once in PAUSE_S at most, by one fetch that all wait for.
    """

    def __init__(
        self,
        issuer: str,
        algorithms: Iterable[str],
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._algorithms = tuple(algorithms)
        self._client = client
        self._clock = clock
        self._keys: Mapping[str, VerificationKey] = {}
        self._read_at = self._asked_at = -math.inf
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> VerificationKey:
        """Raises IssuerUnavailable without any keys, ValueError for a key id that the provider does not have."""
        age_s = self._clock() - self._read_at
        if age_s > FRESH_S:
            self._start_fetch()
        if kid not in self._keys or age_s > KEPT_S:
            await self._fetched()
        if self._clock() - self._read_at > KEPT_S:
            wait_s = self._asked_at + PAUSE_S - self._clock()
            raise IssuerUnavailable(retry_after_s=max(1, math.ceil(wait_s)))
        if kid not in self._keys:
            raise ValueError("unknown kid")
        return self._keys[kid]

    async def close(self) -> None:
        """End the fetch that is under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            with suppress(asyncio.CancelledError):
                await self._fetch

    async def _fetched(self) -> None:
        """Wait for the fetch that is under way, or for a new one if it is time for one."""
        self._start_fetch()
        if self._fetch is not None:
            # A caller who leaves must not end what others wait for.
            await asyncio.shield(self._fetch)

    def _start_fetch(self) -> None:
        if self._fetch is None and self._clock() - self._asked_at >= PAUSE_S:
            self._asked_at = self._clock()
            self._fetch = asyncio.create_task(self._read())

    async def _read(self) -> None:
        """Replace the keys; on any failure keep those there are."""
        import httpx

        try:
            async with asyncio.timeout(TIMEOUT_S):
                keys = await self._provider_keys()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError) as error:
            log.warning("issuer_unreachable", issuer=self._issuer, reason=type(error).__name__, kept=len(self._keys))
        else:
            self._keys, self._read_at = keys, self._clock()
            log.info("issuer_keys_read", issuer=self._issuer, keys=len(keys))
        finally:
            self._fetch = None

    async def _provider_keys(self) -> Mapping[str, VerificationKey]:
        """Raises ValueError for documents that are not what they should be."""
        metadata = await self._document(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        # Else one issuer could pass off another's keys as its own (OpenID Connect Discovery, section 4.3).
        if metadata.get("issuer") != self._issuer:
            raise ValueError("another issuer")
        jwks_uri = metadata.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not is_safe_url(jwks_uri, loopback=not self._issuer.startswith("https:")):
            raise ValueError("jwks_uri")
        keys = read_keys(await self._document(jwks_uri), self._algorithms)
        if not keys:
            raise ValueError("no usable key")
        return keys

    async def _document(self, url: str) -> dict[str, Any]:
        """Raises ValueError unless the answer is a JSON object of bearable size."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        async with self._client.stream("GET", url, headers=headers) as answer:
            if answer.status_code != HTTPStatus.OK:
                raise ValueError("status")
            # Raw: a small body must not unpack into a large one.
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("too large")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document


def read_keys(document: Mapping[str, Any], algorithms: Iterable[str]) -> Mapping[str, VerificationKey]:
    """The keys of a JWK set by their id, each for the first of `algorithms` that it fits; others are passed over.

    Raises ValueError for what is no JWK set.
    """
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("keys")
    keys: dict[str, VerificationKey] = {}
    for entry in listed:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        if isinstance(kid, str) and kid not in keys and (key := _first_fit(entry, algorithms)):
            keys[kid] = key
    return keys


def _first_fit(document: Mapping[str, Any], algorithms: Iterable[str]) -> VerificationKey | None:
    for algorithm in algorithms:
        with suppress(ValueError):
            return load_verification_key(document, algorithm)
    return None
