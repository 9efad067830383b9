"""The deadline of a request, and the memory that its body needs before the image's header is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from api.prediction.errors import ClientDisconnected
from api.prediction.request import BatchBody, ImageBatch, PredictionRequest, WaitForDisconnect
from model.imaging.bounds import MAX_BYTES
from model.imaging.memory import estimate_reading_bytes
from model.serving.memory_budget import Reservation

T = TypeVar("T")

# An image of the largest accepted size, and 64 KiB for the headers and boundaries of a multipart body around it.
MAX_BODY_BYTES = MAX_BYTES + 64 * 1024


def compute_deadline(timeout_s: float | None, longest_s: float) -> float:
    """Return the deadline of a response, in time.monotonic() seconds: after `timeout_s`, but at most `longest_s`."""
    return time.monotonic() + min(timeout_s or longest_s, longest_s)


def estimate_body_bytes(content_length: int | None, largest: int) -> int:
    """Return the memory in bytes that reading a body takes.

    A body of unknown length is assumed to have the maximum length. Its memory is capped at `largest`, the most that one
    request can reserve, so that it is not rejected for a size that it may not have.
    """
    if content_length is None:
        return min(estimate_reading_bytes(MAX_BODY_BYTES), largest)
    return estimate_reading_bytes(content_length)


async def read_batch(
    request: PredictionRequest[BatchBody], reservation: Reservation, largest: int, longest_s: float
) -> ImageBatch:
    """Read the body, reserve the memory to parse it, and parse it.

    The memory for parsing is reserved only after the upload, so that slow uploads do not hold it, and is capped at
    `largest`, so that no body is rejected because of it. The time limit of the request starts before parsing, and the
    one in the body starts after it.
    """
    body = await request.read_body()
    reservation.deadline = compute_deadline(request.timeout_s, longest_s)
    needed = min(estimate_reading_bytes(body.length) + body.parsing_bytes, largest)
    await reservation.resize(needed, while_waiting=body.length)
    batch = await body.parse()
    reservation.deadline = min(reservation.deadline, compute_deadline(batch.timeout_s, longest_s))
    return batch


async def finish_while_connected(work: Coroutine[Any, Any, T], wait_for_disconnect: WaitForDisconnect) -> T:
    """Return the result of `work`. Cancels it and raises ClientDisconnected if the client disconnects."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine runs in a task)
    disconnected, cancelling = False, task.cancelling()

    async def cancel_at_disconnect() -> None:
        nonlocal disconnected
        await wait_for_disconnect()
        disconnected = True
        task.cancel()

    watcher = asyncio.create_task(cancel_at_disconnect())
    try:
        return await work
    except asyncio.CancelledError:
        # Another cancellation of the task at the same time must propagate (as in asyncio.timeout).
        if disconnected and task.uncancel() <= cancelling:
            raise ClientDisconnected from None
        raise
    finally:
        watcher.cancel()
