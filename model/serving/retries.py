"""Decide when to retry loading a version that could not be loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from model.errors import ModelError

# The delay before the first retry; it doubles with each failure up to the last value.
FIRST_RETRY_S, LAST_RETRY_S = 30.0, 1800.0


class _Failure(Struct, frozen=True):
    version: str
    code: str
    retry_at: float
    delay_s: float


class Retries:
    """Remembers the last version that could not be loaded. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failure: _Failure | None = None

    @property
    def code(self) -> str | None:
        """The code of the last failure; None if there has been none since `forget`."""
        return None if self._failure is None else self._failure.code

    def is_due(self, version: str) -> bool:
        """Whether the version may be loaded: it has not failed, or its retry is due."""
        failure = self._failure
        return failure is None or failure.version != version or self._clock() >= failure.retry_at

    def record(self, version: str, error: Exception) -> None:
        """Record a failure. Keeps only its code: the error's traceback would keep the loaded model in memory."""
        delay_s = FIRST_RETRY_S
        if self._failure is not None and self._failure.version == version:
            delay_s = min(2 * self._failure.delay_s, LAST_RETRY_S)
        code = error.code if isinstance(error, ModelError) else "internal_error"
        self._failure = _Failure(version, code, self._clock() + delay_s, delay_s)

    def clear(self) -> None:
        self._failure = None
