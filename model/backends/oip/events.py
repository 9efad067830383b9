"""Events of the engines, for metrics and logs."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct


class EventKind(StrEnum):
    SENT = "sent"
    """A request was sent to the endpoint."""
    DONE = "done"
    """The request ended after `seconds`, successfully or not."""
    FAILED = "failed"
    """The engine responded with an error, quoted in `detail`."""
    RETRIED = "retried"
    """The endpoint did not process the request or did not respond in time; the request goes to another endpoint."""
    EJECTED = "ejected"
    """The endpoint gets no requests until a check succeeds, for the reason in `detail`."""
    ADMITTED = "admitted"
    """A check succeeded. `detail` names missing outputs."""
    REMOVED = "removed"
    """The host name no longer resolves to this address."""
    FELL_BACK = "fell_back"
    """No endpoint works, so the local model computed the prediction."""


class EngineEvent(Struct, frozen=True):
    kind: EventKind
    endpoint: str = ""
    seconds: float = 0.0
    detail: str = ""


OnEvent = Callable[[EngineEvent], None]


def ignore(_: EngineEvent) -> None:
    """Do nothing."""
