"""Which callers a candidate serves: a share of all principals, the same in every worker and after every restart."""

from __future__ import annotations

import hmac

_HASH_BYTES = 8
_POSITIONS = 2.0 ** (8 * _HASH_BYTES)


class CallerAssignment:
    """Assigns principals to the candidate by a keyed hash.

    `key` makes the choice unpredictable for callers. `candidate` is the digest or version of the candidate, so that
    each candidate is tried on other callers. A larger share keeps the principals of a smaller one.
    """

    def __init__(self, key: bytes, candidate: str) -> None:
        self._key = hmac.digest(key, candidate.encode(), "sha256")

    def is_assigned(self, principal_id: str, share: float) -> bool:
        """Return whether the candidate serves this principal when it serves `share`, in [0, 1], of all."""
        digest = hmac.digest(self._key, principal_id.encode(), "sha256")
        position = int.from_bytes(digest[:_HASH_BYTES])
        return position < share * _POSITIONS
