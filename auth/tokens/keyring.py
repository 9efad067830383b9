"""The gateway's signing keys: the newest signs, the ones before it go on verifying: rotating logs nobody out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from auth.errors import WeakSigningKey
from auth.tokens.jws import SigningAlgorithm, SigningKey, generate_signing_key, load_signing_key

# A new key verifies at once and signs this much later, when every process has read it.
ACTIVATION = timedelta(seconds=10)
# How long a key verifies after another took its place: longer than any token lives.
RETIREMENT = timedelta(hours=2)

_CREATED = re.compile(r"^Created: (\S+)$", re.MULTILINE)
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as text, and since when it has been in the bundle (UTC)."""

    text: str
    created_at: datetime


class Keyring:
    """Raises WeakSigningKey for an empty bundle or an unfit key in it; `clock` tells seconds since 1970."""

    def __init__(self, algorithm: SigningAlgorithm, bundle: str, clock: Callable[[], float] = time.time) -> None:
        self._algorithm = algorithm
        self._clock = clock
        self._keys: tuple[tuple[SigningKey, datetime], ...] = ()
        self.replace(bundle)

    def replace(self, bundle: str) -> None:
        """Go on with the keys of another bundle; on WeakSigningKey with those it has."""
        entries = read_bundle(self._algorithm, bundle)
        self._keys = tuple((load_signing_key(self._algorithm, entry.text), entry.created_at) for entry in entries)

    @property
    def signing(self) -> SigningKey:
        """The newest key that every process knows by now."""
        known_by_all = datetime.fromtimestamp(self._clock(), UTC) - ACTIVATION
        return next((key for key, created_at in self._keys if created_at <= known_by_all), self._keys[-1][0])

    def find(self, kid: object) -> SigningKey:
        """Raises ValueError for an unknown key id."""
        for key, _ in self._keys:
            if key.kid == kid:
                return key
        raise ValueError("unknown kid")

    def public_jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as a JWK set (RFC 7517); empty where secrets sign."""
        return {"keys": [document for key, _ in self._keys if (document := key.public_jwk())]}


def read_bundle(algorithm: SigningAlgorithm, bundle: str) -> Sequence[KeyEntry]:
    """The keys of a bundle, newest first: PEM blocks for ES256, lines for HS256, each after its `Created:` line.

    Literal backslash-n sequences count as line ends, as platforms write them into variables. Raises WeakSigningKey.
    """
    text = bundle.replace("\\n", "\n").strip()
    if algorithm == "ES256":
        blocks = [(match.start(), match.group()) for match in _PEM.finditer(text)]
    else:
        lines = re.finditer(r"^\S.*$", text, re.MULTILINE)
        blocks = [(match.start(), match.group()) for match in lines if not _CREATED.match(match.group())]
    # What is no key in any form is left to the loader, which says what is wrong with it.
    blocks = blocks or [(0, text)]
    entries, end = [], 0
    for start, block in blocks:
        entries.append(KeyEntry(block, _created_at(text[end:start])))
        end = start + len(block)
    return sorted(entries, key=lambda entry: entry.created_at, reverse=True)


def rotate_bundle(algorithm: SigningAlgorithm, bundle: str) -> str:
    """The bundle with a new key in front, without the keys that nothing can be signed with any more."""
    now = datetime.now(UTC)
    entries = [KeyEntry(generate_signing_key(algorithm).strip(), now), *read_bundle(algorithm, bundle)]
    replaced_at = [now, *(entry.created_at for entry in entries)]
    kept = [entry for entry, end in zip(entries, replaced_at, strict=False) if end > now - RETIREMENT]
    return "".join(f"Created: {entry.created_at.isoformat(timespec='seconds')}\n{entry.text}\n" for entry in kept)


def _created_at(text: str) -> datetime:
    """A key without the line is as old as can be."""
    found = _CREATED.findall(text)
    if not found:
        return datetime.fromtimestamp(0, UTC)
    try:
        return datetime.fromisoformat(found[-1]).astimezone(UTC)
    except ValueError:
        raise WeakSigningKey("A `Created:` line of the signing keys holds no time. Correct or remove it.") from None
