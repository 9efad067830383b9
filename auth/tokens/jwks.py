"""Keys of external issuers: fetched by OpenID Connect Discovery 1.0, and cached while the issuer is unavailable."""

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

REFRESH_AFTER_S = 600  # older keys are fetched again in the background
MAX_AGE_S = 86_400  # keys older than this are no longer used
MIN_INTERVAL_S = 30  # between two fetches, however many requests there are
TIMEOUT_S = 5
MAX_BYTES = 262_144
MAX_KEYS = 100

log = structlog.get_logger("atalaya.issuers")


class ProviderKeys:
    """The public keys of one issuer; `clock` returns monotonic seconds.

    Whatever callers send, keys are fetched at most once per MIN_INTERVAL_S, and all callers wait for the same fetch.
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
        self._fetched_at = self._started_at = -math.inf
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> VerificationKey:
        """Return a key. Raises IssuerUnavailable if there are no usable keys, ValueError for an unknown key id."""
        age_s = self._clock() - self._fetched_at
        if age_s > REFRESH_AFTER_S:
            self._start_fetch()
        if kid not in self._keys or age_s > MAX_AGE_S:
            await self._wait_for_fetch()
        if self._clock() - self._fetched_at > MAX_AGE_S:
            wait_s = self._started_at + MIN_INTERVAL_S - self._clock()
            raise IssuerUnavailable(retry_after_s=max(1, math.ceil(wait_s)))
        if kid not in self._keys:
            raise ValueError("unknown kid")
        return self._keys[kid]

    async def close(self) -> None:
        """Cancel the running fetch."""
        if self._fetch is not None:
            self._fetch.cancel()
            with suppress(asyncio.CancelledError):
                await self._fetch

    async def _wait_for_fetch(self) -> None:
        """Wait for the running fetch, or for a new one if the last one is long enough ago."""
        self._start_fetch()
        if self._fetch is not None:
            # A cancelled caller must not cancel the fetch that others wait for.
            await asyncio.shield(self._fetch)

    def _start_fetch(self) -> None:
        if self._fetch is None and self._clock() - self._started_at >= MIN_INTERVAL_S:
            self._started_at = self._clock()
            self._fetch = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Replace the keys; keep the current ones if fetching fails."""
        import httpx

        try:
            async with asyncio.timeout(TIMEOUT_S):
                keys = await self._fetch_keys()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError) as error:
            log.warning("issuer_unreachable", issuer=self._issuer, reason=type(error).__name__, kept=len(self._keys))
        else:
            self._keys, self._fetched_at = keys, self._clock()
            log.info("issuer_keys_read", issuer=self._issuer, keys=len(keys))
        finally:
            self._fetch = None

    async def _fetch_keys(self) -> Mapping[str, VerificationKey]:
        """Fetch metadata and keys. Raises ValueError for invalid documents, and httpx errors."""
        metadata = await self._fetch_document(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        # Otherwise one issuer could present another's keys as its own (OpenID Connect Discovery, section 4.3).
        if metadata.get("issuer") != self._issuer:
            raise ValueError("another issuer")
        jwks_uri = metadata.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not is_safe_url(jwks_uri, loopback=not self._issuer.startswith("https:")):
            raise ValueError("jwks_uri")
        keys = read_keys(await self._fetch_document(jwks_uri), self._algorithms)
        if not keys:
            raise ValueError("no usable key")
        return keys

    async def _fetch_document(self, url: str) -> dict[str, Any]:
        """Fetch a JSON object of at most MAX_BYTES. Raises ValueError, and httpx errors."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        async with self._client.stream("GET", url, headers=headers) as response:
            if response.status_code != HTTPStatus.OK:
                raise ValueError("status")
            # Reads raw bytes, because a small compressed body could unpack into a large one.
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("too large")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document


def read_keys(document: Mapping[str, Any], algorithms: Iterable[str]) -> Mapping[str, VerificationKey]:
    """Return the keys of a JWK set by id, each for the first of `algorithms` that fits; unusable keys are skipped.

    Raises ValueError if the document is not a JWK set.
    """
    members = document.get("keys")
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise ValueError("keys")
    keys: dict[str, VerificationKey] = {}
    for member in members:
        kid = member.get("kid") if isinstance(member, dict) else None
        if isinstance(kid, str) and kid not in keys and (key := _load_key(member, algorithms)):
            keys[kid] = key
    return keys


def _load_key(document: Mapping[str, Any], algorithms: Iterable[str]) -> VerificationKey | None:
    for algorithm in algorithms:
        with suppress(ValueError):
            return load_verification_key(document, algorithm)
    return None
