"""Limits on request bodies: their size, and how slowly they may arrive."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTooLarge, RequestTooSlow
from api.http.problems import problem

MAX_DOCUMENT_BYTES = 64 * 1024
# A client has this long to send a body, plus one second for each BODY_BYTES_A_SECOND received.
BODY_GRACE_S = 10.0
BODY_BYTES_A_SECOND = 32 * 1024


class BodyLimit:
    """Rejects a body that is too large, by its announced length or while it streams, and one that arrives too slowly.

    Endpoints at the paths in `streamed` read bodies of up to `max_bytes` themselves, and check the announced length
    themselves, because their rejections are recorded. On all other paths FastAPI reads the whole body, whatever its
    type, which may have `max_document_bytes`.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_document_bytes: int, streamed: frozenset[str]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_document_bytes = max_document_bytes
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] in self._streamed:
            await self._app(scope, limit_body(receive, self._max_bytes), send)
        elif announces_more(Headers(scope=scope), self._max_document_bytes):
            await self._reject(scope, receive, send)
        else:
            await self._app(scope, limit_body(receive, self._max_document_bytes), send)

    async def _reject(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["problem_code"] = BodyTooLarge.code
        response = problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            BodyTooLarge.code,
            str(body_too_large(self._max_document_bytes)),
            scope["state"]["request_id"],
            {"Connection": "close"},
        )
        await response(scope, receive, send)


def limit_body(receive: Receive, max_bytes: int) -> Receive:
    """Wrap `receive` to raise BodyTooLarge or RequestTooSlow. Only time spent waiting for the client counts."""
    received_bytes, waited_s, complete = 0, 0.0, False

    async def receive_limited() -> Message:
        nonlocal received_bytes, waited_s, complete
        if complete:
            return await receive()
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


def announces_more(headers: Headers, max_bytes: int) -> bool:
    """Whether Content-Length is present and exceeds `max_bytes`, or is not a number."""
    announced = headers.get("content-length", "0")
    return not announced.isdecimal() or int(announced) > max_bytes


def body_too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body may have at most {max_bytes} bytes. Send a smaller one.")
