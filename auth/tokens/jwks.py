"""Keys of external issuers: found through OpenID Connect Discovery 1.0, and cached while the issuer is unavailable."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from msgspec import Struct, field

from auth.errors import IssuerUnavailable
from auth.tokens.issuer_rules import is_safe_url
from auth.tokens.jws import VerificationKey
from auth.tokens.public_keys import load_public_key

if TYPE_CHECKING:
    import httpx

REFRESH_AFTER_S = 600  # older keys are fetched again in the background
MAX_AGE_S = 86_400  # keys older than this are no longer used
MIN_INTERVAL_S = 30  # between two fetches, however many requests there are
TIMEOUT_S = 5
MAX_BYTES = 262_144
MAX_KEYS = 100
MAX_CANDIDATES = 4  # keys that are tried for a token when no key id says which one signed it

log = structlog.get_logger("atalaya.issuers")


class ProviderFault(ValueError):
    """The provider can be reached, but its documents cannot be used.

    The message says why and can be sent to callers; `detail` contains what the provider sent, for the log.
    """

    def __init__(self, message: str, detail: object = "") -> None:
        super().__init__(message)
        self.detail = repr(detail)[:200] if detail else ""


class KeySet(Struct, frozen=True):
    """The usable keys of an issuer: by id, and those without an id."""

    by_id: Mapping[str, VerificationKey] = field(default_factory=dict)
    without_id: tuple[VerificationKey, ...] = ()

    def __len__(self) -> int:
        return len(self.by_id) + len(self.without_id)

    def select(self, kid: str | None, algorithm: str) -> Sequence[VerificationKey]:
        """Return the key with the id, else the few keys that can have signed a token with this header.

        RFC 7517 makes the key id optional in keys, and RFC 7515 in tokens.
        """
        if kid is not None and kid in self.by_id:
            return (self.by_id[kid],)
        others = self.by_id.values() if kid is None else ()
        fitting = [key for key in (*self.without_id, *others) if key.algorithm == algorithm]
        return fitting[:MAX_CANDIDATES]


class ProviderKeys:
    """The public keys of one issuer; `clock` returns monotonic seconds.

    Whatever callers send, keys are fetched at most once per MIN_INTERVAL_S, and all callers wait for the same fetch.
    `on_fetch` is called after each fetch with whether it succeeded.
    """

    def __init__(
        self,
        issuer: str,
        algorithms: Iterable[str],
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
        on_fetch: Callable[[bool], None] = lambda _succeeded: None,
    ) -> None:
        self._issuer = issuer
        self._algorithms = tuple(algorithms)
        self._client = client
        self._clock = clock
        self._on_fetch = on_fetch
        self._keys = KeySet()
        self._problem = ""
        self._fetched_at = self._started_at = -math.inf
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> Sequence[VerificationKey]:
        """Return the keys to try for a token; see KeySet.select.

        Raises IssuerUnavailable if there are no usable keys, ValueError if none fits the token.
        """
        age_s = self._clock() - self._fetched_at
        if age_s > REFRESH_AFTER_S:
            self._start_fetch()
        if not self._keys.select(kid, algorithm) or age_s > MAX_AGE_S:
            await self._wait_for_fetch()
        if self._clock() - self._fetched_at > MAX_AGE_S:
            wait_s = self._started_at + MIN_INTERVAL_S - self._clock()
            raise IssuerUnavailable(self._problem, retry_after_s=max(1, math.ceil(wait_s)))
        candidates = self._keys.select(kid, algorithm)
        if not candidates:
            raise ValueError("unknown kid")
        return candidates

    def has(self, kid: str | None) -> bool:
        """Return whether a key has this id."""
        return kid in self._keys.by_id

    async def renew(self) -> bool:
        """Fetch the keys again, but at most once per MIN_INTERVAL_S; return whether they were replaced."""
        before = self._fetched_at
        await self._wait_for_fetch()
        return self._fetched_at != before

    async def close(self) -> None:
        """Cancel the running fetch."""
        if self._fetch is not None:
            self._fetch.cancel()
            with suppress(asyncio.CancelledError):
                await self._fetch

    async def _wait_for_fetch(self) -> None:
        """Wait for the running fetch, or start one if the last one began at least MIN_INTERVAL_S ago."""
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
        except ProviderFault as fault:
            self._problem = str(fault)
            report = {"issuer": self._issuer, "reason": str(fault), "detail": fault.detail, "kept": len(self._keys)}
            log.warning("issuer_unusable", **report)
            self._on_fetch(False)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            self._problem = ""
            log.warning("issuer_unreachable", issuer=self._issuer, reason=type(error).__name__, kept=len(self._keys))
            self._on_fetch(False)
        else:
            self._keys, self._fetched_at, self._problem = keys, self._clock(), ""
            log.info("issuer_keys_read", issuer=self._issuer, keys=len(keys))
            self._on_fetch(True)
        finally:
            self._fetch = None

    async def _fetch_keys(self) -> KeySet:
        """Fetch metadata and keys. Raises ProviderFault, and httpx errors."""
        address = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = await self._fetch_document(address, "discovery document")
        # Otherwise one issuer could present another's keys as its own (OpenID Connect Discovery, section 4.3).
        named = metadata.get("issuer")
        if named != self._issuer:
            slash = isinstance(named, str) and named.rstrip("/") == self._issuer.rstrip("/")
            difference = "differ in the issuer's final slash" if slash else "name different issuers"
            raise ProviderFault(f"AUTH__ISSUERS and its discovery document {difference}", named)
        jwks_uri = metadata.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not is_safe_url(jwks_uri, loopback=not self._issuer.startswith("https:")):
            raise ProviderFault("its discovery document names no https address for the keys", jwks_uri)
        keys = read_keys(await self._fetch_document(jwks_uri, "key set"), self._algorithms)
        if not len(keys):
            raise ProviderFault(f"none of its keys fits the algorithms {', '.join(self._algorithms)} in AUTH__ISSUERS")
        return keys

    async def _fetch_document(self, url: str, name: str) -> dict[str, Any]:
        """Fetch a JSON object of at most MAX_BYTES. Raises ProviderFault, and httpx errors."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        async with self._client.stream("GET", url, headers=headers) as response:
            if response.status_code != HTTPStatus.OK:
                raise ProviderFault(f"its {name} has the status {response.status_code}", url)
            # Reads raw bytes, because a small compressed body could unpack into a large one.
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ProviderFault(f"its {name} has more than {MAX_BYTES} bytes", url)
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ProviderFault(f"its {name} is not a JSON object", url)
        return document


def read_keys(document: Mapping[str, Any], algorithms: Iterable[str]) -> KeySet:
    """Return the keys of a JWK set, each for the first of `algorithms` that fits; unusable keys are skipped.

    Raises ProviderFault if the document is not a JWK set.
    """
    members = document.get("keys")
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise ProviderFault(f"its key set has no list of at most {MAX_KEYS} keys")
    by_id: dict[str, VerificationKey] = {}
    without_id: list[VerificationKey] = []
    for member in members:
        key = _load_key(member, algorithms) if isinstance(member, dict) else None
        if key is None:
            continue
        if "kid" not in member:
            without_id.append(key)
        elif isinstance(member["kid"], str):
            by_id.setdefault(member["kid"], key)
    return KeySet(by_id, tuple(without_id))


def _load_key(document: Mapping[str, Any], algorithms: Iterable[str]) -> VerificationKey | None:
    for algorithm in algorithms:
        with suppress(ValueError):
            return load_public_key(document, algorithm)
    return None
