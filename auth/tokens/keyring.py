"""The gateway's signing keys: the newest one signs, older ones still verify, so that rotation logs no user out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from auth.errors import WeakSigningKey
from auth.tokens.jws import SigningAlgorithm, SigningKey, generate_signing_key, load_signing_key

# A new key verifies tokens at once. It signs them only after this delay, when every process has read it.
ACTIVATION_DELAY = timedelta(seconds=10)
# How long a replaced key still verifies: longer than any token is valid.
RETIREMENT_DELAY = timedelta(hours=2)

_CREATED = re.compile(r"^Created: (\S+)$", re.MULTILINE)
# `openssl ecparam -genkey` writes the curve's parameters before the key.
_PEM = re.compile(r"-----BEGIN (?!EC PARAMETERS)[A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)


class KeyEntry(Struct, frozen=True):
    """A key of a bundle as text, and when it was created (UTC)."""

    text: str
    created_at: datetime


class Keyring:
    """The keys of a bundle. Raises WeakSigningKey for an empty bundle or an unusable key.

    `clock` returns seconds since 1970. A key starts signing `activation_delay` after it was created, or after `replace`
    added it if that was later, because until then other processes may not have read it.
    """

    def __init__(
        self,
        algorithm: SigningAlgorithm,
        bundle: str,
        clock: Callable[[], float] = time.time,
        activation_delay: timedelta = ACTIVATION_DELAY,
    ) -> None:
        self._algorithm = algorithm
        self._clock = clock
        self._activation_delay = activation_delay
        self._keys: tuple[tuple[SigningKey, datetime], ...] = ()  # newest first, each with the start of its delay
        self.on_removal: Callable[[], None] = lambda: None  # called after keys were removed
        self.replace(bundle)

    def replace(self, bundle: str) -> None:
        """Replace the keys with those of a bundle. Raises WeakSigningKey, and then keeps the current keys."""
        earliest = datetime.fromtimestamp(self._clock() if self._keys else 0, UTC)
        known = {key.kid: starts_at for key, starts_at in self._keys}
        keys = []
        for entry in read_bundle(self._algorithm, bundle):
            key = load_signing_key(self._algorithm, entry.text)
            keys.append((key, known.get(key.kid, max(entry.created_at, earliest))))
        self._keys = tuple(keys)
        if not known.keys() <= {key.kid for key, _ in keys}:
            self.on_removal()

    @property
    def signing(self) -> SigningKey:
        """The newest key whose delay has passed; the oldest key if no delay has passed."""
        latest_active = datetime.fromtimestamp(self._clock(), UTC) - self._activation_delay
        return next((key for key, starts_at in self._keys if starts_at <= latest_active), self._keys[-1][0])

    def find(self, kid: object) -> SigningKey:
        """Return the key with the id. Raises ValueError for an unknown id."""
        for key, _ in self._keys:
            if key.kid == kid:
                return key
        raise ValueError("unknown kid")

    def public_jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK set (RFC 7517), which is empty for secret keys."""
        return {"keys": [document for key, _ in self._keys if (document := key.public_jwk())]}


def read_bundle(algorithm: SigningAlgorithm, bundle: str) -> Sequence[KeyEntry]:
    """Return the keys of a bundle, newest first: PEM blocks for ES256, lines for HS256, each after its `Created:` line.

    Literal backslash-n sequences are read as line ends, because platforms write them into environment variables. Raises
    WeakSigningKey.
    """
    text = bundle.replace("\\n", "\n").strip()
    if algorithm == "ES256":
        blocks = [(match.start(), match.group()) for match in _PEM.finditer(text)]
    else:
        lines = re.finditer(r"^\S.*$", text, re.MULTILINE)
        blocks = [(match.start(), match.group()) for match in lines if not _CREATED.match(match.group())]
    # The loader rejects text without a key, with a message that says what is wrong.
    blocks = blocks or [(0, text)]
    entries, end = [], 0
    for start, block in blocks:
        entries.append(KeyEntry(block, _parse_created_at(text[end:start])))
        end = start + len(block)
    return sorted(entries, key=lambda entry: entry.created_at, reverse=True)


def rotate_bundle(algorithm: SigningAlgorithm, bundle: str) -> str:
    """Return the bundle with a new key in front, without the keys whose tokens have all expired."""
    now = datetime.now(UTC)
    entries = [KeyEntry(generate_signing_key(algorithm).strip(), now), *read_bundle(algorithm, bundle)]
    replaced_at = [now, *(entry.created_at for entry in entries)]
    remaining = [entry for entry, end in zip(entries, replaced_at, strict=False) if end > now - RETIREMENT_DELAY]
    return "".join(f"Created: {entry.created_at.isoformat(timespec='seconds')}\n{entry.text}\n" for entry in remaining)


def _parse_created_at(text: str) -> datetime:
    """Return the time of the last `Created:` line; a key without one is the oldest. Raises WeakSigningKey."""
    times = _CREATED.findall(text)
    if not times:
        return datetime.fromtimestamp(0, UTC)
    try:
        return datetime.fromisoformat(times[-1]).astimezone(UTC)
    except ValueError:
        raise WeakSigningKey(
            "A `Created:` line of the signing keys contains no valid time. Correct or remove it."
        ) from None
