"""What happens with the engines, for metrics and logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    SENT = "sent"
    """A request goes to the endpoint."""
    DONE = "done"
    """It has ended, after `seconds`, also if it failed."""
    FAILED = "failed"
    """The engine responded with an error, which `detail` repeats."""
    RETRIED = "retried"
    """A request that the endpoint did not process, or to which it is silent, goes to another one."""
    EJECTED = "ejected"
    """No request goes to the endpoint, because of `detail`, until a check succeeds."""
    ADMITTED = "admitted"
    """A check has succeeded. `detail` says which outputs are missing."""
    REMOVED = "removed"
    """The host's name no longer has this address."""
    FELL_BACK = "fell_back"
    """No endpoint works, so the local model computed the prediction."""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    kind: EventKind
    endpoint: str = ""
    seconds: float = 0.0
    detail: str = ""


OnEvent = Callable[[EngineEvent], None]


def ignore(_: EngineEvent) -> None:
    """Report nothing."""
