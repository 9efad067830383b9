"""Limits on request bodies: their size, and how slowly they may arrive."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTooLarge, RequestTooSlow, UnsupportedEncoding

MAX_DOCUMENT_BYTES = 64 * 1024
# A client has this long to send a body, plus one second for each BODY_BYTES_A_SECOND received.
BODY_GRACE_S = 10.0
BODY_BYTES_A_SECOND = 64 * 1024


class BodyLimit:
    """Rejects a body that is compressed, too large or too slow, when the endpoint reads it.

    Endpoints at the paths in `streamed` read bodies of up to `max_bytes` themselves. On other paths FastAPI reads the
    whole body, whatever its type, which may have `max_document_bytes`. A path without a route is a 404 before that.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_document_bytes: int, streamed: frozenset[str]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_document_bytes = max_document_bytes
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            max_bytes = self._max_bytes if scope["path"] in self._streamed else self._max_document_bytes
            receive = limit_body(Headers(scope=scope), receive, max_bytes)
        await self._app(scope, receive, send)


def limit_body(headers: Headers, receive: Receive, max_bytes: int) -> Receive:
    """Wrap `receive` to raise BodyTooLarge, RequestTooSlow or UnsupportedEncoding.

    Only time spent waiting for the client counts. What the headers announce is checked before the first byte is read.
    """
    received_bytes, waited_s, complete = 0, 0.0, False

    async def receive_limited() -> Message:
        nonlocal received_bytes, waited_s, complete
        if complete:
            return await receive()
        if not received_bytes:
            _check_announcement(headers, max_bytes)
        started = time.monotonic()
        try:
            async with asyncio.timeout(BODY_GRACE_S + received_bytes / BODY_BYTES_A_SECOND - waited_s):
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


def _check_announcement(headers: Headers, max_bytes: int) -> None:
    if announces_more(headers, max_bytes):
        raise body_too_large(max_bytes)
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedEncoding("The gateway accepts no compressed body. Send it without Content-Encoding.")


def announces_more(headers: Headers, max_bytes: int) -> bool:
    """Whether Content-Length is present and exceeds `max_bytes`, or is not a number."""
    announced = headers.get("content-length", "0")
    return not announced.isdecimal() or int(announced) > max_bytes


def body_too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body may have at most {max_bytes} bytes. Send a smaller one.")
