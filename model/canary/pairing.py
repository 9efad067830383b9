"""Pairs requests that only the candidate served with requests that only production served."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Arm(StrEnum):
    CANDIDATE = "candidate"
    PRODUCTION = "production"


class Pair(Struct, Generic[T], frozen=True):
    candidate: T
    production: T


class Pairing(Generic[T]):
    """Pairs each result with the latest unpaired one of the other arm.

    The results of a pair are close in time, so that an outage or a busy hour affects both. The pairing depends only on
    the order of the arms, never on the results. At most one result is unpaired; a later one of the same arm replaces
    it. Wald paired two series of trials in this way ("Sequential Analysis", 1947, chapter 6).
    """

    def __init__(self) -> None:
        self._unpaired: tuple[Arm, T] | None = None

    def add(self, arm: Arm, result: T) -> Pair[T] | None:
        """Return the pair that `result` completes, if there is one."""
        if self._unpaired is None or self._unpaired[0] is arm:
            self._unpaired = (arm, result)
            return None
        other = self._unpaired[1]
        self._unpaired = None
        return Pair(result, other) if arm is Arm.CANDIDATE else Pair(other, result)
