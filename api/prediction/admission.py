"""Whether a caller may predict, until when, and whether there is room: in the queue, and in memory for the request."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable
from typing import TypeVar

import structlog
from starlette.requests import Request

from api.deps import Caller, State, get_services
from api.http.uploads import MAX_BODY_BYTES
from api.settings import Settings
from auth.principal import Scope
from model.errors import DeadlineExceeded, Overloaded
from model.imaging.memory import estimate_reading_bytes
from monitoring.memory import memory_limit_bytes, private_bytes, resident_bytes

log = structlog.get_logger("atalaya.admission")
T = TypeVar("T")

TIMEOUT_HEADER = "X-Request-Timeout"

# What a process needs beyond what it has once it is ready. Measured: 12 MB under load, and 38 MB while two passwords
# are hashed; of what it has, some 50 MB are pages of libraries, and the kernel drops those first.
GROWTH_BYTES = 30 << 20
# Enough for photographs of a few megapixels: a gateway that can decode nothing is of no use.
LEAST_BYTES = 32 << 20

_may_predict = Caller(Scope.PREDICT)


async def check_capacity(request: Request) -> None:
    """Turn a caller away for whom there is no place, before more is read of the request: refusing must cost little.

    Raises Overloaded, and what keeps a caller from predicting.
    """
    rooms = get_services(request)
    principal = await _may_predict(request)
    if rooms["service"].queue.busy:
        try:
            rooms["service"].queue.check_capacity(principal.subject)
        except Overloaded:
            rooms["metrics"].shed.labels("queue_full").inc()
            raise


def compute_deadline(rooms: State, timeout_s: float | None) -> float:
    """When the answer is of no use any more, in seconds of time.monotonic(): what the caller asks for, in bounds."""
    longest_s = rooms["settings"].model.deadline_seconds
    return time.monotonic() + min(timeout_s or longest_s, longest_s)


async def before(deadline: float, work: Awaitable[T]) -> T:
    """Raises DeadlineExceeded where the work, the reading of a body above all, takes longer."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await work
    except TimeoutError:
        raise DeadlineExceeded from None


def memory_for_images(settings: Settings) -> int:
    """Bytes for this process's images: what MODEL__MEMORY_MEGABYTES says, or what the container's limit leaves.

    Called when everything else is open. Several workers share the limit evenly.
    """
    if settings.model.memory_megabytes is not None:
        return settings.model.memory_megabytes << 20
    limit, workers = memory_limit_bytes(), settings.web_concurrency
    at_rest = resident_bytes() if workers == 1 else private_bytes()
    parent = 0 if workers == 1 else resident_bytes(os.getppid())
    left = (limit - parent) // workers - at_rest - GROWTH_BYTES
    tell = log.info if left >= LEAST_BYTES else log.warning
    tell("memory_for_images", bytes=max(left, LEAST_BYTES), limit_bytes=limit, at_rest_bytes=at_rest)
    return max(left, LEAST_BYTES)


def announced_bytes(request: Request) -> int:
    """What the request takes until its header is known. A body that hides its length is taken for the longest."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        return estimate_reading_bytes(int(announced))
    # It is not refused for what it may turn out to be.
    return min(estimate_reading_bytes(MAX_BODY_BYTES), get_services(request)["memory"].largest)
