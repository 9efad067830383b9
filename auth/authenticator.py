"""From a credential to a principal, in microseconds for one that was seen before."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from auth.changes import ChangeFeed
from auth.errors import InvalidToken
from auth.principal import Principal

CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class VerifiedCredential:
    """A credential that was accepted: for whom, until when (seconds since 1970), and whose change ends it.

    With `networks`, it counts only from an address in one of them.
    """

    principal: Principal
    valid_until: float
    targets: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()


Verifier = Callable[[str], Awaitable[VerifiedCredential]]
CredentialVerifiers = Iterable[tuple[Callable[[str], bool], Verifier]]


class Authenticator:
    """Verifies with the first verifier whose `accepts` says the credential is its own; remembers what it found.

    What it remembers is kept by the credential's SHA-256, until the credential expires or a change names it.
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
        self._known: OrderedDict[bytes, VerifiedCredential] = OrderedDict()
        changes.subscribe(self._forget)

    async def authenticate(self, credential: str, address: str) -> Principal:
        """Return whom the credential stands for. Raises InvalidToken, IssuerUnavailable, DatabaseUnavailable."""
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
        verified = self._known.get(digest)
        if verified is None or verified.valid_until <= self._clock():
            verified = await self._verify(credential, digest)
        if verified.networks and not _within(address, verified.networks):
            raise InvalidToken("This key is not valid from here. Use it from an address that it allows.")
        return verified.principal

    async def _verify(self, credential: str, digest: bytes) -> VerifiedCredential:
        version = self._changes.version
        verifier = next((verify for accepts, verify in self._verifiers if accepts(credential)), None)
        if verifier is None:
            raise InvalidToken("This is not a valid credential. Log in again.")
        verified = await verifier(credential)
        if any(map(self._changes.is_revoked, verified.targets)):
            raise InvalidToken("The credential was revoked. Log in again.")
        self._known.pop(digest, None)
        # A change that came meanwhile may have been this one's.
        if version == self._changes.version:
            self._known[digest] = verified
            if len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)
        return verified

    def _forget(self, target: str) -> None:
        for digest in [digest for digest, verified in self._known.items() if target in verified.targets]:
            del self._known[digest]


def _within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def token_targets(principal: Principal) -> frozenset[str]:
    """What a revocation of this token can name."""
    kinds = {"jti": principal.token_id, "sid": principal.session_id, "client": principal.client_id}
    return frozenset(f"{kind}:{value}" for kind, value in kinds.items() if value)
