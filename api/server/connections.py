"""Bounds on one connection before the application sees a request: bytes, headers, pipelined requests and time."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.errors import ApiError, BadRequest, HeadTooLarge, RequestTooSlow
from api.http.errors import build_error_headers, find_status
from api.http.problems import problem
from api.http.security_headers import set_security_headers
from api.server.connection_limiter import ConnectionLimiter
from api.server.connection_memory import ConnectionMemory
from api.server.tls import CertificateProtocol
from api.server.upgrades import UpgradeIgnoringParser, add_path, build_framing_head, has_body
from api.server.write_timeout import WriteTimeout
from model.errors import MemoryFull

MAX_HEAD_BYTES = 32 * 1024  # of the request line and the headers; also of a chunk's head, and of trailers
MAX_HEADERS = 100
MAX_PIPELINED = 16
HEAD_LIMIT_S = 10.0  # for the head of a request to arrive
BODY_REST_LIMIT_S = 10.0  # for the rest of a body after the response is complete
# Added to each limit, because a late event loop runs its timers before it reads data that arrived in time.
LAST_READ_S = 0.01

log = structlog.get_logger("atalaya.access")


class BoundedProtocol(CertificateProtocol):
    """Closes a connection that exceeds a bound, after a problem document if a response is still possible.

    uvicorn limits only the pause between two requests, and httptools buffers a header however long it grows.
    """

    _timer: asyncio.TimerHandle | None = None
    _write_timeout: WriteTimeout
    _address: str | None = None  # of a connection that holds a slot
    _error: ApiError | None = None  # raised in a callback; the parser replaces it with an error of its own
    _last_error: ApiError | MemoryFull | None = None  # to be sent once the earlier requests have their responses
    _ignores_callbacks = False  # while the parser reads a head that the gateway has already handled
    _unparsed_bytes = 0  # received since the parser last called back
    _head_bytes = 0
    _fields = 0  # headers and trailers of the current request
    _receiving_head = False
    _receiving_message = False

    def __init__(self, *arguments: Any, limiter: ConnectionLimiter, memory: ConnectionMemory, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limiter = limiter
        self._memory = memory
        self.parser = UpgradeIgnoringParser(self, self._resume_after_upgrade)

    @property
    def held_bytes(self) -> int:
        """The bytes of the latest head, and of the bodies that the application has not read yet."""
        return self._head_bytes + self._unparsed_bytes + sum(len(cycle.body) for cycle in self._list_cycles())

    @property
    def expects_request(self) -> bool:
        """Whether a request is arriving, or the first one has not begun."""
        return self._receiving_head or self.cycle is None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        self._write_timeout = WriteTimeout(transport, self.loop.call_later)
        address = self.client[0] if self.client else ""
        if not self._limiter.acquire(address):
            log.info("connection_refused", code="too_many_connections")
            transport.abort()
            return
        self._address = address
        self._memory.add(self)
        self._start_timeout(HEAD_LIMIT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        self._write_timeout.cancel()
        self._memory.discard(self)
        if self._address is not None:
            self._limiter.release(self._address)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timeout.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_timeout.cancel()

    def data_received(self, data: bytes) -> None:
        if self._last_error is not None:
            return
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unparsed_bytes > MAX_HEAD_BYTES and self._receiving_message:
            self._reject(_head_too_large())
        elif self._timer is None and self._is_idle():
            self._start_timeout(HEAD_LIMIT_S)
        self._memory.count_received(len(data))

    def drop(self) -> None:
        """Free the memory for another connection; a request that has no response yet gets a 503."""
        for cycle in self._list_cycles():
            cycle.body.clear()
        error = MemoryFull("The memory for requests is in use. Try again later.", retry_after_s=1)
        if self._receiving_message:
            self._reject(error)
        elif self._is_idle():
            self._close()
        else:
            self._log_refusal(error, in_application=not self.pipeline)
            self._abandon_request(error)

    def on_message_begin(self) -> None:
        if self._ignores_callbacks:
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise self._remember(BadRequest(f"At most {MAX_PIPELINED} requests may be pipelined on a connection."))
        self._receiving_head = self._receiving_message = True
        self._head_bytes = self._fields = 0
        if not self.flow.write_paused:
            self._write_timeout.cancel()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._ignores_callbacks:
            return
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._ignores_callbacks:
            return
        self._head_bytes += len(name) + len(value)
        self._fields += 1
        if self._fields > MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            raise self._remember(_head_too_large())
        if self._receiving_head:  # trailers never become headers, which a proxy has checked (RFC 9110, section 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._ignores_callbacks:
            return
        self._unparsed_bytes = 0
        if self._head_bytes > MAX_HEAD_BYTES:  # the request line alone is too long
            raise self._remember(_head_too_large())
        if self.parser.get_method() == b"CONNECT":
            raise self._remember(BadRequest("The gateway is not a proxy. Send a request for one of its own paths."))
        self.expect_100_continue &= self.parser.get_http_version() != "1.0"  # RFC 9110, section 10.1.1
        self.url = add_path(self.url)
        super().on_headers_complete()
        self._receiving_head = False
        self._cancel_timeout()
        # The parser would report an upgrade request as complete now, before its body.
        self._ignores_callbacks = self.parser.should_upgrade() and has_body(self.headers)

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._ignores_callbacks:
            return
        self._receiving_message = False
        self._unparsed_bytes = 0
        if self.cycle.response_complete:
            self._cancel_timeout()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.flow.write_paused:
            self._write_timeout.start()
        if self._last_error is not None and self._is_idle():
            self._reject(self._last_error)
        elif self._receiving_message and self.cycle.response_complete:
            self._start_timeout(BODY_REST_LIMIT_S)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(LAST_READ_S, self._close_unused)

    def shutdown(self) -> None:
        super().shutdown()
        self._write_timeout.start()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for invalid HTTP, and for the errors that the callbacks above raise."""
        self._reject(self._error or BadRequest("The request is not valid HTTP. Check what the client sends."))

    def _list_cycles(self) -> list[RequestResponseCycle]:
        """Return the request-response cycles of the current request and of the pipelined requests behind it."""
        return [*([] if self.cycle is None else [self.cycle]), *(cycle for cycle, _ in self.pipeline)]

    def _is_idle(self) -> bool:
        """Whether every request so far has its response."""
        return self.cycle is None or self.cycle.response_complete

    def _resume_after_upgrade(self, data: bytes) -> None:
        """Parse what follows the head of an upgrade request as if the request had offered no upgrade."""
        self.parser = UpgradeIgnoringParser(self, self._resume_after_upgrade)
        if self._ignores_callbacks:
            self.parser.feed_data(build_framing_head(self.headers))
            self._ignores_callbacks = False
        self.parser.feed_data(data)

    def _remember(self, error: ApiError) -> ApiError:
        """Keep the error for send_400_response."""
        self._error = error
        return error

    def _reject(self, error: ApiError | MemoryFull) -> None:
        """Close the connection, after a problem document if the rejected request can still get a response.

        The requests before it get their responses first.
        """
        receiving_body = self._receiving_message and not self._receiving_head
        if self._last_error is None:
            in_application = receiving_body and not self.pipeline and not self.cycle.response_complete
            self._log_refusal(error, in_application=in_application)
            self._last_error = error
        self._cancel_timeout()
        if receiving_body:
            self._abandon_request(error)
        elif self._is_idle():
            self._respond_and_close(error)

    def _log_refusal(self, error: ApiError | MemoryFull, *, in_application: bool) -> None:
        """Log the error on the line of the request that the application handles, or on a separate line."""
        if in_application:
            self.cycle.scope["state"]["problem_code"] = error.code
        else:
            log.info("connection_refused", code=error.code)

    def _abandon_request(self, error: ApiError | MemoryFull) -> None:
        """End the current request: send `error` if that is still possible, and close the connection."""
        if self.pipeline or self.cycle.response_started:
            self._close()
            return
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._respond_and_close(error)

    def _respond_and_close(self, error: ApiError | MemoryFull) -> None:
        if not self.transport.is_closing():
            self.transport.write(_render_problem(error))
        self._close()

    def _close_unused(self) -> None:
        if not self.transport.is_closing():
            self._close()

    def _close(self) -> None:
        self.transport.close()
        self._write_timeout.start()

    def _start_timeout(self, seconds: float) -> None:
        self._cancel_timeout()
        self._timer = self.loop.call_later(seconds, self._await_last_read)

    def _cancel_timeout(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _await_last_read(self) -> None:
        self._timer = self.loop.call_later(LAST_READ_S, self._handle_timeout)

    def _handle_timeout(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._receiving_head:
            self._reject(RequestTooSlow("The request arrived too slowly. Send it again over a faster connection."))
        else:
            self._close()


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"A request may have at most {MAX_HEADERS} headers, of {MAX_HEAD_BYTES} bytes in total.")


def _render_problem(error: ApiError | MemoryFull) -> bytes:
    """Render a whole HTTP response, outside of the application."""
    request_id = uuid.uuid4().hex
    status = find_status(error)
    assert status is not None  # noqa: S101  (a test ensures that every class has a status)
    response = problem(
        status, error.code, str(error), request_id, {"Connection": "close", **build_error_headers(error)}
    )
    set_security_headers(response.raw_headers, request_id)
    head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, status.phrase.encode(), head) + bytes(response.body)
