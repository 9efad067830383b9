"""Limits on request bodies: their size, how slowly they may arrive, and the memory of documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTooLarge, RequestTooSlow, UnsupportedEncoding
from model.serving.memory_budget import MemoryBudget

MAX_DOCUMENT_BYTES = 64 * 1024
# The seconds that a client has to send a body, plus one second for each BODY_BYTES_PER_S received.
BODY_GRACE_S = 10.0
BODY_BYTES_PER_S = 64 * 1024
# A document is in memory twice: in chunks, and joined.
_DOCUMENT_COPIES = 2
# The caller that all documents are charged to, because their senders may be unknown. They share one part of the memory.
_DOCUMENTS = "documents"
# A number with more significant digits exceeds every limit. int() raises ValueError for more than 4,300 digits.
_MAX_DIGITS = 19


class BodyLimit:
    """Rejects a body that is compressed, too large or too slow, when the endpoint reads it.

    Endpoints at the paths of `is_streamed` read bodies of up to `max_bytes` themselves. On other paths FastAPI reads
    the whole body, whatever its type, up to `max_document_bytes`. A path without a route gets a 404 before that.

    Memory for the body is reserved in the budget that `get_memory` returns, except at the paths of `is_reserving`,
    whose endpoints do that themselves.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        max_document_bytes: int,
        is_streamed: Callable[[str], bool],
        is_reserving: Callable[[str], bool],
        get_memory: Callable[[Scope], MemoryBudget],
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_document_bytes = max_document_bytes
        self._is_streamed = is_streamed
        self._is_reserving = is_reserving
        self._get_memory = get_memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        max_bytes = self._max_bytes if self._is_streamed(scope["path"]) else self._max_document_bytes
        receive = limit_body(headers, receive, max_bytes)
        length = 0 if self._is_reserving(scope["path"]) else self._find_length(headers)
        if not length:
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as reservation:
            reserve = partial(self._get_memory(scope).reserve, _DOCUMENT_COPIES * length, _DOCUMENTS)
            await self._app(scope, _reserve_first(receive, reservation, reserve), send)

    def _find_length(self, headers: Headers) -> int:
        """Return the maximum length of the document in bytes; 0 without a body."""
        if "transfer-encoding" in headers:
            return self._max_document_bytes
        return min(parse_length(headers.get("content-length", "0")) or 0, self._max_document_bytes)


def _reserve_first(
    receive: Receive, reservation: AsyncExitStack, reserve: Callable[[], AbstractAsyncContextManager[object]]
) -> Receive:
    """Wrap `receive` to reserve memory when the endpoint begins to read, which may raise MemoryFull."""
    reserved = False

    async def receive_reserved() -> Message:
        nonlocal reserved
        if not reserved:
            reserved = True
            await reservation.enter_async_context(reserve())
        return await receive()

    return receive_reserved


def limit_body(headers: Headers, receive: Receive, max_bytes: int) -> Receive:
    """Wrap `receive` to raise BodyTooLarge, RequestTooSlow or UnsupportedEncoding.

    Only time spent waiting for the client counts. The headers are checked before the first byte is read.
    """
    received_bytes, waited_s, complete = 0, 0.0, False

    async def receive_limited() -> Message:
        nonlocal received_bytes, waited_s, complete
        if complete:
            return await receive()
        if not received_bytes:
            _check_headers(headers, max_bytes)
        started = time.monotonic()
        try:
            async with asyncio.timeout(BODY_GRACE_S + received_bytes / BODY_BYTES_PER_S - waited_s):
                message = await receive()
        except TimeoutError:
            raise RequestTooSlow(
                "The request body arrived too slowly. Use a faster connection or send a smaller body."
            ) from None
        waited_s += time.monotonic() - started
        received_bytes += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if received_bytes > max_bytes:
            raise body_too_large(max_bytes)
        return message

    return receive_limited


def _check_headers(headers: Headers, max_bytes: int) -> None:
    if declares_more(headers, max_bytes):
        raise body_too_large(max_bytes)
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedEncoding("The gateway accepts no compressed body. Send it without Content-Encoding.")


def declares_more(headers: Headers, max_bytes: int) -> bool:
    """Return whether Content-Length is present and exceeds `max_bytes`, or is not a number."""
    length = parse_length(headers.get("content-length", "0"))
    return length is None or length > max_bytes


def parse_length(text: str) -> int | None:
    """Return the bytes that a header declares, at most 10**19; None if the text is not a sequence of ASCII digits."""
    if not (text.isascii() and text.isdecimal()):
        return None
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def body_too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body may have at most {max_bytes} bytes. Send a smaller one.")
