"""Which requests a candidate gets: a share of all, or those of a share of all callers."""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable
from enum import StrEnum

from model.canary.pairing import Arm

_HASH_BYTES = 8
_POSITIONS = 2.0 ** (8 * _HASH_BYTES)


class Mode(StrEnum):
    """What a candidate does."""

    OFF = "off"
    SHADOW = "shadow"
    """It gets copies of requests."""
    CANARY = "canary"
    """It responds to some callers."""


class CallerAssignment:
    """Assigns principals to the candidate by a keyed hash: the same ones in every worker and after every restart.

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


def assign_callers(assignment: CallerAssignment, share: float) -> Callable[[str], Arm]:
    """Let the candidate respond to a share of all callers."""
    return lambda caller: Arm.CANDIDATE if assignment.is_assigned(caller, share) else Arm.PRODUCTION


def sample_requests(share: float) -> Callable[[str], Arm | None]:
    """Let production respond to all requests, and choose a share of them for the comparison."""
    return lambda _: Arm.PRODUCTION if random.random() < share else None  # noqa: S311  (not a secret)
