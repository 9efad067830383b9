"""What a back end knows of the prediction that it computes, and what it says about how it did so.

Back ends that compute in this process need neither, so this is no parameter of the protocol `Backend`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from model.backends.base import ModelInfo

LOCAL = "local"
"""The endpoint of a prediction that the fallback made in this process."""


class DigestSource(StrEnum):
    METADATA = "metadata"
    """The engine's metadata of the model names it."""
    ARTEFACT = "artefact"
    """The gateway has read the file itself."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Which engine computed a prediction: its address and port, or LOCAL. What it does not say is None."""

    endpoint: str
    version: str | None
    digest_source: DigestSource | None


@dataclass(slots=True)
class BackendCall:
    """One prediction. After `deadline`, in seconds of time.monotonic(), its result is useless.

    The back end sets `engine` if an inference engine computed it, and `model` if that is not the back end's own `info`.
    """

    deadline: float = math.inf
    model: ModelInfo | None = None
    engine: EngineFacts | None = None


_current: ContextVar[BackendCall | None] = ContextVar("backend_call", default=None)


def current_call() -> BackendCall:
    """Return the call of this thread, or one without a deadline."""
    return _current.get() or BackendCall()


@contextmanager
def calling(deadline: float) -> Iterator[BackendCall]:
    """Let the back end that this thread uses in the block see and describe the call."""
    call = BackendCall(deadline)
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)
