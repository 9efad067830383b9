"""The prediction pipeline without HTTP: its predictions and rejections, and the records of both."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.errors import RequestTooSlow
from api.prediction.admission import compute_deadline
from api.prediction.errors import ClientDisconnected
from auth.errors import QuotaExceeded
from model.errors import MemoryFull, Overloaded, UnsupportedImage
from tests.api.prediction.transport import ADDRESS, ROUTE, InProcessTransport, OpenTransport
from tests.model.serving.gated import GatedBackend, png, until

IMAGE = png(1)


@asynccontextmanager
async def occupied(open_transport: OpenTransport, **changes: Any) -> AsyncIterator[InProcessTransport]:
    """A transport whose only worker is busy with a first prediction until the context ends."""
    backend = GatedBackend()
    async with open_transport(backend, workers=1, **changes) as transport:
        first = asyncio.create_task(transport.run(IMAGE))
        await until(lambda: backend.in_progress == 1)
        try:
            yield transport
        finally:
            backend.gate.set()
            await first


async def test_a_prediction_is_recorded_and_charged(open_transport: OpenTransport) -> None:
    """The pipeline returns the prediction with the id of its ledger entry, and charges one request for it."""
    async with open_transport() as transport:
        recorded = await transport.run(IMAGE)
    assert uuid.UUID(recorded.id).version == 7
    assert recorded.prediction.image.sha256 == hashlib.sha256(IMAGE).hexdigest()
    (facts,) = transport.ledger
    assert (facts["status"], facts["code"], facts["route"]) == (200, None, ROUTE)
    assert (facts["principal"], facts["request_id"]) == (transport.principal.subject, "request-1")
    assert facts["output"]["label"] == recorded.prediction.label
    assert transport.used_requests == 1
    label = {"model": recorded.prediction.model.full_name, "label": recorded.prediction.label}
    assert transport.metric("atalaya_predictions_total", **label) == 1
    assert transport.metric("atalaya_prediction_stage_seconds_count", stage="commit") == 1


async def test_a_bad_image_is_recorded_once(open_transport: OpenTransport) -> None:
    """An image that cannot be decoded is recorded with its error code, and nothing is charged."""
    async with open_transport() as transport:
        with pytest.raises(UnsupportedImage):
            await transport.run(b"text")
    assert transport.outcomes == [(415, "unsupported_image", 1)]
    assert transport.ledger[0]["image"] is None
    assert transport.used_requests == 0


async def test_an_exceeded_quota_is_recorded_once(open_transport: OpenTransport) -> None:
    """A request over the quota is rejected before decoding, and is in the ledger, the audit log and the metrics."""
    async with open_transport(quota=1) as transport:
        await transport.run(IMAGE)
        with pytest.raises(QuotaExceeded):
            await transport.run(IMAGE)
    assert transport.outcomes == [(200, None, 1), (429, "quota_exceeded", 1)]
    assert transport.audit_log == [("quota", "refused", transport.principal.subject, ADDRESS)]
    assert transport.used_requests == 1
    assert transport.metric("atalaya_rate_limited_total", limit="quota") == 1
    assert transport.metric("atalaya_prediction_stage_seconds_count", stage="decode") == 1


async def test_a_charge_that_the_transaction_rejects_is_recorded_once(open_transport: OpenTransport) -> None:
    """Of two predictions that were admitted at once, the quota covers one; the other is recorded as over the quota."""
    backend = GatedBackend()
    async with open_transport(backend, quota=1, workers=2) as transport:
        both = asyncio.gather(transport.run(IMAGE), transport.run(IMAGE), return_exceptions=True)
        await until(lambda: backend.in_progress == 2)
        backend.gate.set()
        results = await both
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 1
    assert sorted(transport.outcomes, key=str) == [(200, None, 1), (429, "quota_exceeded", 1)]
    assert transport.audit_log == [("quota", "refused", transport.principal.subject, ADDRESS)]
    assert transport.used_requests == 1


async def test_an_overloaded_queue_rejects_before_the_body_is_read(open_transport: OpenTransport) -> None:
    """When the queue is full, a request is rejected before its body is read, counted and recorded once."""
    async with occupied(open_transport, queue_limit=0) as transport:
        with pytest.raises(Overloaded):
            await transport.run(IMAGE)
        assert transport.bodies_read == 1  # the body of the first request
    assert sorted(transport.outcomes, key=str) == [(200, None, 1), (503, "overloaded", 1)]
    assert transport.metric("atalaya_shed_total", reason="queue_full") == 1


async def test_the_capacity_check_counts_but_records_nothing(open_transport: OpenTransport) -> None:
    """A transport that checks the capacity early records the rejection itself, with the same code."""
    async with occupied(open_transport, queue_limit=0) as transport:
        with pytest.raises(Overloaded) as refused:
            transport.pipeline.check_capacity(transport.principal)
        transport.pipeline.record_refusal(transport.request().origin, refused.value)
    assert sorted(transport.outcomes, key=str) == [(200, None, 1), (503, "overloaded", 1)]
    assert transport.metric("atalaya_shed_total", reason="queue_full") == 1


async def test_the_deadline_counts_from_the_end_of_the_body(open_transport: OpenTransport) -> None:
    """The time for the upload does not count for the caller's timeout, which starts at the end of the body."""
    backend, read_at = GatedBackend(), list[float]()

    async def read_slowly() -> bytes:
        await asyncio.sleep(0.1)
        read_at.append(time.monotonic())
        return IMAGE

    async with open_transport(backend, workers=1) as transport:
        running = asyncio.create_task(transport.run(read_body=read_slowly, timeout_s=10))
        await until(lambda: backend.in_progress == 1)
        (job,) = transport.serving.predictions.queue.running
        backend.gate.set()
        await asyncio.wait([running])
    assert job.deadline >= read_at[0] + 10


async def test_a_body_that_arrives_too_slowly_is_recorded_once(open_transport: OpenTransport) -> None:
    """A request whose body arrives too slowly is recorded with status 408 and releases its memory."""

    async def read_too_slowly() -> bytes:
        raise RequestTooSlow("The request body arrived too slowly.")

    async with open_transport() as transport:
        with pytest.raises(RequestTooSlow):
            await transport.run(read_body=read_too_slowly)
        assert transport.serving.memory.reserved == 0
    assert transport.outcomes == [(408, "request_too_slow", 1)]


async def test_a_client_that_disconnects_while_sending_is_recorded_once(open_transport: OpenTransport) -> None:
    """A client that disconnects during its upload is recorded with status 499."""

    async def read_part() -> bytes:
        raise ClientDisconnected

    async with open_transport() as transport:
        with pytest.raises(ClientDisconnected):
            await transport.run(read_body=read_part)
    assert transport.outcomes == [(499, "client_left", 1)]
    assert transport.metric("atalaya_shed_total", reason="caller_left") == 1


async def test_a_request_that_the_server_cancels_is_recorded_once(open_transport: OpenTransport) -> None:
    """A request that the server cancels because it shuts down is recorded with status 503, and not charged."""
    backend = GatedBackend()
    async with open_transport(backend, workers=1) as transport:
        cancelled = asyncio.create_task(transport.run(IMAGE))
        await until(lambda: backend.in_progress == 1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        backend.gate.set()
    assert transport.outcomes == [(503, "shutting_down", 1)]
    assert transport.used_requests == 0


async def test_a_client_that_disconnects_in_the_queue_is_recorded_once(open_transport: OpenTransport) -> None:
    """A request whose client disconnects while it is queued is neither inferred nor charged."""

    async def wait_for_disconnect() -> None:
        await until(lambda: transport.serving.predictions.queue.waiting == 1)

    async with occupied(open_transport) as transport:
        with pytest.raises(ClientDisconnected):
            await transport.run(IMAGE, wait_for_disconnect=wait_for_disconnect)
    assert sorted(transport.outcomes, key=str) == [(200, None, 1), (499, "client_left", 1)]
    assert transport.used_requests == 1
    assert transport.metric("atalaya_prediction_stage_seconds_count", stage="infer") == 1


async def test_full_memory_is_recorded_once(open_transport: OpenTransport) -> None:
    """A request that cannot reserve memory for its body is rejected unread, counted and recorded once."""
    async with open_transport(memory_megabytes=64) as transport:
        memory = transport.serving.memory
        async with memory.reserve(memory.largest, "ben", math.inf):
            with pytest.raises(MemoryFull):
                await transport.run(IMAGE, timeout_s=0.02)
        assert transport.bodies_read == 0
    assert transport.outcomes == [(503, "memory_full", 1)]
    assert transport.metric("atalaya_shed_total", reason="memory") == 1


async def test_an_unexpected_error_is_recorded_once(open_transport: OpenTransport) -> None:
    """An error that no table maps is recorded as internal_error, and reaches the transport unchanged."""

    async def fail() -> bytes:
        raise ZeroDivisionError

    async with open_transport() as transport:
        with pytest.raises(ZeroDivisionError):
            await transport.run(read_body=fail)
    assert transport.outcomes == [(500, "internal_error", 1)]


async def test_a_deadline_is_bounded_by_the_gateway() -> None:
    """A caller may allow less time than the gateway does, but not more."""
    for timeout_s, allowed_s in ((2, 2), (1e9, 10), (None, 10)):
        began = time.monotonic()
        assert began + allowed_s <= compute_deadline(timeout_s, longest_s=10) <= time.monotonic() + allowed_s


async def test_a_dry_run_costs_nothing(open_transport: OpenTransport) -> None:
    """A dry run returns the cost and what remains; nothing is charged or recorded."""
    async with open_transport(quota=3) as transport:
        estimate = await transport.pipeline.dry_run(transport.request(IMAGE))
    assert (estimate.pixels, estimate.remaining) == (40 * 30, (3, None))
    assert (transport.outcomes, transport.used_requests) == ([], 0)


async def test_a_rejected_dry_run_is_recorded_once(open_transport: OpenTransport) -> None:
    """A dry run of a file that is not an image is recorded like a prediction of it."""
    async with open_transport() as transport:
        with pytest.raises(UnsupportedImage):
            await transport.pipeline.dry_run(transport.request(b"text"))
    assert transport.outcomes == [(415, "unsupported_image", 1)]
