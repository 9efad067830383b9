"""Maps credentials to principals, and caches verified credentials until they expire or change."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable

from cachetools import LRUCache
from msgspec import Struct

from auth.changes import ChangeFeed
from auth.errors import InvalidToken
from auth.networks import Network, is_within
from auth.principal import Principal
from auth.tokens.digests import digest_text

CACHE_SIZE = 4096


class VerifiedCredential(Struct, frozen=True):
    """The result of verifying a credential.

    It is valid until `valid_until` (seconds since 1970), or until a change names one of `targets`. If `networks` is
    not empty, it is accepted only from an address in one of them.
    """

    principal: Principal
    valid_until: float
    targets: frozenset[str]
    networks: tuple[Network, ...] = ()


Verifier = Callable[[str], Awaitable[VerifiedCredential]]
CredentialVerifiers = Iterable[tuple[Callable[[str], bool], Verifier]]


class CredentialCache(LRUCache[bytes, VerifiedCredential]):
    """At most `maxsize` verified credentials by their SHA-256 digest; a full cache evicts the least recently used.

    `digests_by_target` is the reverse index, so that a change takes time only for the credentials that it concerns.
    The base class evicts and removes through `__delitem__`, which keeps the index consistent.
    """

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self.digests_by_target: dict[str, set[bytes]] = {}

    def find_valid(self, digest: bytes, now: float) -> VerifiedCredential | None:
        """Return the credential. If it has expired at `now` (seconds since 1970), remove it and return None."""
        verified = self.get(digest)
        if verified is not None and verified.valid_until <= now:
            del self[digest]
            return None
        return verified

    def invalidate(self, target: str) -> None:
        """Remove every credential that names the target."""
        for digest in tuple(self.digests_by_target.get(target, ())):
            del self[digest]

    def __setitem__(self, digest: bytes, verified: VerifiedCredential) -> None:
        self.pop(digest, None)
        super().__setitem__(digest, verified)
        for target in verified.targets:
            self.digests_by_target.setdefault(target, set()).add(digest)

    def __delitem__(self, digest: bytes) -> None:
        targets = self[digest].targets
        super().__delitem__(digest)
        for target in targets:
            digests = self.digests_by_target[target]
            digests.remove(digest)
            if not digests:
                del self.digests_by_target[target]

    def clear(self) -> None:
        super().clear()
        self.digests_by_target.clear()


class Authenticator:
    """Verifies a credential with the first verifier that accepts its form, and caches the result.

    The cache holds digests instead of credentials. An entry is used until the credential expires or a change names
    one of its targets; afterwards the credential is verified again. Failed verifications are not cached.
    """

    def __init__(
        self,
        verifiers: CredentialVerifiers,
        changes: ChangeFeed,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifiers = tuple(verifiers)
        self._changes = changes
        self._clock = clock
        self._cache = CredentialCache(CACHE_SIZE)
        changes.subscribe(self._cache.invalidate)

    async def authenticate(self, credential: str, address: str) -> Principal:
        """Return the credential's principal.

        Raises InvalidToken, ExpiredToken, SubjectBarred, IssuerUnavailable, DatabaseUnavailable.
        """
        await self._changes.ensure_current()
        digest = digest_text(credential)
        verified = self._cache.find_valid(digest, self._clock())
        if verified is None:
            verified = await self._verify(credential, digest)
        if verified.networks and not is_within(address, verified.networks):
            raise InvalidToken("This key is not valid from this address. Use it from an address that it allows.")
        return verified.principal

    def verify_again(self) -> None:
        """Verify every credential again at its next use."""
        self._cache.clear()

    async def _verify(self, credential: str, digest: bytes) -> VerifiedCredential:
        version = self._changes.version
        verifier = next((verify for accepts, verify in self._verifiers if accepts(credential)), None)
        if verifier is None:
            raise InvalidToken("This is not a valid credential. Log in again.")
        verified = await verifier(credential)
        if any(map(self._changes.is_revoked, verified.targets)):
            raise InvalidToken("The credential was revoked. Log in again.")
        # A change that arrived during the verification may concern this credential, whose data was read before it.
        if version == self._changes.version:
            self._cache[digest] = verified
        return verified


def token_targets(principal: Principal) -> frozenset[str]:
    """Return the targets by which an access token can be revoked: its id, its session and its client."""
    ids = {"jti": principal.token_id, "sid": principal.session_id, "client": principal.client_id}
    return frozenset(f"{kind}:{value}" for kind, value in ids.items() if value)
