"""Choose the requests that a candidate gets: a share of all requests, or the requests of a share of callers."""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable
from enum import StrEnum

from model.canary.pairing import Arm

_HASH_BYTES = 8
_POSITIONS = 2.0 ** (8 * _HASH_BYTES)


class Mode(StrEnum):
    """How a candidate is tried."""

    OFF = "off"
    SHADOW = "shadow"
    """The candidate gets copies of requests."""
    CANARY = "canary"
    """The candidate responds to some callers."""


class CallerAssignment:
    """Assigns principals to the candidate by a keyed hash, so that all workers and restarts choose the same ones.

    `key` makes the choice unpredictable for callers. `candidate` is the digest or version of the candidate, so that
    each candidate is tried on different callers. A larger share includes the principals of a smaller one.
    """

    def __init__(self, key: bytes, candidate: str) -> None:
        self._key = hmac.digest(key, candidate.encode(), "sha256")

    def is_assigned(self, principal_id: str, share: float) -> bool:
        """Whether the candidate serves this principal if it serves `share`, in [0, 1], of all principals."""
        digest = hmac.digest(self._key, principal_id.encode(), "sha256")
        position = int.from_bytes(digest[:_HASH_BYTES])
        return position < share * _POSITIONS


def assign_callers(assignment: CallerAssignment, share: float) -> Callable[[str], Arm]:
    """Return a function that assigns a share of all callers to the candidate."""
    return lambda caller: Arm.CANDIDATE if assignment.is_assigned(caller, share) else Arm.PRODUCTION


def sample_requests(share: float) -> Callable[[str], Arm | None]:
    """Return a function that chooses a share of requests for comparison. Production responds to all of them."""
    return lambda _: Arm.PRODUCTION if random.random() < share else None  # noqa: S311  (not a secret)
