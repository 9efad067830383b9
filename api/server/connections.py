"""What one connection may cost before the application sees a request: bytes, headers, requests in line, time."""

from __future__ import annotations

import asyncio
import resource
import uuid
from asyncio import TimerHandle
from collections import Counter
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders

from api.errors import ApiError, BadRequest, HeadTooLarge, RequestTooSlow
from api.http.errors import find_status, problem
from api.http.middleware import set_security_headers
from api.server.tls import CertificateProtocol
from auth.networks import client_network

MAX_HEAD_BYTES = 32 * 1024  # of the request line and the headers; also of a chunk's head, and of trailers
MAX_HEADERS = 100
MAX_PIPELINED = 16
MAX_CONNECTIONS = 1000  # of one process; each may hold a document of 64 KiB
SPARE_DESCRIPTORS = 64  # for the database, the spool and forms
HEAD_LIMIT_S = 10.0  # for the head of a request to arrive
REST_LIMIT_S = 10.0  # for the rest of a body that has its answer already
UNREAD_LIMIT_S = 10.0  # after which so much of an answer must have been read, or all of it
UNREAD_BYTES = 10 * 1024
LAST_LIMIT_S = 30.0  # for what a closed connection still holds, of which TLS does not say how much it is

log = structlog.get_logger("atalaya.access")


class ConnectionLimiter:
    """How many connections there may be: in all, and half as many from one address, unless proxies stand before it."""

    def __init__(self, *, behind_proxies: bool) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = max(1, min(MAX_CONNECTIONS, descriptors - SPARE_DESCRIPTORS))
        self._most_of_one = self.most if behind_proxies else max(1, self.most // 2)
        self._taken: Counter[str] = Counter()

    def take(self, address: str) -> bool:
        place = client_network(address)
        if self._taken.total() >= self.most or self._taken[place] >= self._most_of_one:
            return False
        self._taken[place] += 1
        return True

    def give_back(self, address: str) -> None:
        place = client_network(address)
        self._taken[place] -= 1
        if not self._taken[place]:
            del self._taken[place]


class BoundedProtocol(CertificateProtocol):
    """Ends a connection that costs more than its bounds, with a problem document where an answer is still possible.

    uvicorn bounds only the pause between two requests, and httptools gathers a header for as long as it grows.
    """

    _address: str | None = None  # once it has a place
    _timer: TimerHandle | None = None
    _unread_timer: TimerHandle | None = None
    _refusal: ApiError | None = None
    _unparsed = 0
    _head_bytes = 0
    _arriving = False  # a head has begun, and is not whole
    _in_message = False

    def __init__(self, *arguments: Any, places: ConnectionLimiter, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self._places.take(address):
            log.info("connection_refused", code="too_many_connections")
            transport.abort()
            return
        self._address = address
        self._end_after(HEAD_LIMIT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        self._cancel_write_timeout()
        if self._address is not None:
            self._places.give_back(self._address)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_timeout()  # whatever is asked for meanwhile

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_write_timeout()

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
        if not self.flow.write_paused:
            self._cancel_write_timeout()
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
        upgrade = self.parser.should_upgrade()  # then the parser takes a body for the next request
        if upgrade and self._has_body():
            raise self._refused(BadRequest("The gateway speaks no other protocol. Send the request without Upgrade."))
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and not upgrade
        self._arriving = False
        self._cancel_timeout()

    def _has_body(self) -> bool:
        lengths = (value.strip(b" \t0") for name, value in self.headers if name == b"content-length")
        return any(lengths) or any(name == b"transfer-encoding" for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._unparsed = 0
        if self.cycle.response_complete:
            self._cancel_timeout()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.flow.write_paused:
            self._start_write_timeout()
        if self._in_message and self.cycle.response_complete:
            self._end_after(REST_LIMIT_S)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._start_write_timeout()

    def shutdown(self) -> None:
        super().shutdown()
        self._start_write_timeout()

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
        self._start_write_timeout()

    def _start_write_timeout(self) -> None:
        """End the connection if what is left to send does not get less."""
        self._cancel_write_timeout()
        if left := self.transport.get_write_buffer_size():
            self._unread_timer = self.loop.call_later(UNREAD_LIMIT_S, self._judge_reading, left)
        elif self.transport.is_closing():
            self._unread_timer = self.loop.call_later(LAST_LIMIT_S, self.transport.abort)

    def _judge_reading(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() >= min(before, UNREAD_BYTES):
            self._start_write_timeout()
        else:
            self.transport.abort()

    def _cancel_write_timeout(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _end_after(self, seconds: float) -> None:
        self._cancel_timeout()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _cancel_timeout(self) -> None:
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
            self._start_write_timeout()


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"A request may have {MAX_HEADERS} headers of {MAX_HEAD_BYTES} bytes in all. Send fewer.")


def _rendered(error: ApiError) -> bytes:
    """A whole HTTP answer, for which there is no request to give it to."""
    request_id = uuid.uuid4().hex
    status = find_status(error)
    assert status is not None  # noqa: S101  (a test holds that every class is mapped)
    answer = problem(status, error.code, str(error), request_id, {"Connection": "close"})
    set_security_headers(MutableHeaders(raw=answer.raw_headers), request_id)
    head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, status.phrase.encode(), head) + bytes(answer.body)
