"""What one connection may cost before the application sees a request: bytes, headers, requests in line, time."""

from __future__ import annotations

import asyncio
import uuid
from asyncio import TimerHandle

import structlog
from starlette.datastructures import MutableHeaders

from api.errors import ApiError, BadRequest, HeadTooLarge, RequestTooSlow, problem, status_of
from api.middleware import dress
from api.tls import CertificateProtocol

MAX_HEAD_BYTES = 32 * 1024  # of the request line and the headers; also of a chunk's head, and of trailers
MAX_HEADERS = 100
MAX_PIPELINED = 16
HEAD_LIMIT_S = 10.0  # for the head of a request to arrive
REST_LIMIT_S = 10.0  # for the rest of a body that has its answer already

log = structlog.get_logger("atalaya.access")


class BoundedProtocol(CertificateProtocol):
    """Ends a connection that costs more than its bounds, with a problem document where an answer is still possible.

    uvicorn bounds only the pause between two requests, and httptools gathers a header for as long as it grows.
    """

    _timer: TimerHandle | None = None
    _refusal: ApiError | None = None
    _unparsed = 0
    _head_bytes = 0
    _arriving = False  # a head has begun, and is not whole
    _in_message = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        self._end_after(HEAD_LIMIT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unparsed > MAX_HEAD_BYTES and self._in_message:
            self._refuse(_head_too_large())
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._end_after(HEAD_LIMIT_S)

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise self._refused(BadRequest(f"At most {MAX_PIPELINED} requests may wait in line on one connection."))
        self._arriving = self._in_message = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if len(self.headers) >= MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            raise self._refused(_head_too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        if self._head_bytes > MAX_HEAD_BYTES:  # all of it in the request line
            raise self._refused(_head_too_large())
        super().on_headers_complete()
        self._arriving = False
        self._forget_timer()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._unparsed = 0
        if self.cycle.response_complete:
            self._forget_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_message and self.cycle.response_complete:
            self._end_after(REST_LIMIT_S)

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP, and to what the callbacks above refuse."""
        self._refuse(self._refusal or BadRequest("This is no valid HTTP request. Send one."))

    def _refused(self, error: ApiError) -> ApiError:
        """Remember what the parser will turn into an error of its own."""
        self._refusal = error
        return error

    def _refuse(self, error: ApiError) -> None:
        """Answer with `error`, unless an earlier request of the connection still waits for its own; then close."""
        log.info("connection_refused", code=error.code)
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_rendered(error))
        self.transport.close()

    def _end_after(self, seconds: float) -> None:
        self._forget_timer()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._arriving:
            self._refuse(RequestTooSlow("The request arrived too slowly. Send it again, faster."))
        else:
            self.transport.close()


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"A request may have {MAX_HEADERS} headers of {MAX_HEAD_BYTES} bytes in all. Send fewer.")


def _rendered(error: ApiError) -> bytes:
    """A whole HTTP answer, for which there is no request to give it to."""
    request_id = uuid.uuid4().hex
    status = status_of(error)
    assert status is not None  # noqa: S101  (a test holds that every class is mapped)
    answer = problem(status, error.code, str(error), request_id, {"Connection": "close"})
    dress(MutableHeaders(raw=answer.raw_headers), request_id)
    head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, status.phrase.encode(), head) + bytes(answer.body)
