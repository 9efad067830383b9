"""The context of one prediction: its deadline, and the engine and model that the back end reports having used.

Back ends that compute in this process need no context, so the methods of `Backend` do not take it as a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

from msgspec import Struct

from model.backends.base import ModelInfo

LOCAL = "local"
"""The endpoint of a prediction that the fallback made in this process."""


class DigestSource(StrEnum):
    METADATA = "metadata"
    """The engine's metadata for the model contains the digest."""
    ARTEFACT = "artefact"
    """The gateway has read the file itself and verified the digest."""


class EngineFacts(Struct, frozen=True):
    """The engine that computed a prediction. `endpoint` is its address and port, or LOCAL. Unknown facts are None."""

    endpoint: str
    version: str | None
    digest_source: DigestSource | None


class BackendCall(Struct):
    """One prediction, whose result is not needed after `deadline`, in seconds of time.monotonic().

    The back end sets `engine` if it uses inference engines, and `model` if the model differs from its `info`.
    """

    deadline: float = math.inf
    model: ModelInfo | None = None
    engine: EngineFacts | None = None


_current: ContextVar[BackendCall | None] = ContextVar("backend_call", default=None)


def current_call() -> BackendCall:
    """Return the call of this thread, or a new one without a deadline."""
    return _current.get() or BackendCall()


@contextmanager
def calling(deadline: float) -> Iterator[BackendCall]:
    """Set the current call of this thread for the block. The back end reads and updates it."""
    call = BackendCall(deadline)
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)
