"""Bounds on one connection before the application sees a request: bytes, headers, pipelined requests and time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.errors import ApiError, BadRequest, RequestTooSlow
from api.server.connections.memory import ConnectionMemory
from api.server.connections.read_timeout import LAST_READ_S, ReadTimeout
from api.server.connections.refusals import MAX_HEAD_BYTES, MAX_HEADERS, Refusal, head_too_large, render_refusal
from api.server.connections.transport import ResponseTransport
from api.server.connections.upgrades import (
    UpgradeIgnoringParser,
    add_path,
    build_framing_head,
    find_authority,
    has_body,
)
from api.server.connections.write_timeout import WriteTimeout
from api.server.tls import CertificateProtocol
from model.errors import MemoryFull

# Parsed at once. A head that begins in the same piece as the end of a request is counted from the next piece on.
_PARSED_BYTES = 8 * 1024
MAX_PIPELINED = 16
HEAD_LIMIT_S = 10.0  # for the head of a request to arrive
BODY_REST_LIMIT_S = 10.0  # for the rest of a body after the response is complete


class BoundedProtocol(CertificateProtocol):
    """Closes a connection that exceeds a bound, after a problem document if a response is still possible.

    uvicorn limits only the pause between two requests, and httptools buffers a header however long it grows.
    `on_closed` is called once the connection is lost, `on_refused` with the code of an error that closes it before the
    application has its request.
    """

    _read_timeout: ReadTimeout
    _write_timeout: WriteTimeout
    _error: ApiError | None = None  # raised by a callback; kept here because the parser raises its own error instead
    _last_error: Refusal | None = None  # to be sent once the earlier requests have their responses
    _ignores_callbacks = False  # while the parser repeats a head, or reports the end of an upgrade request too early
    _unparsed_bytes = 0  # received since the parser last called back
    _head_bytes = 0
    _fields = 0  # headers and trailers of the current request
    _receiving_head = False
    _receiving_message = False

    def __init__(
        self,
        *arguments: Any,
        memory: ConnectionMemory,
        on_closed: Callable[[], None],
        on_refused: Callable[[str], object],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._memory = memory
        self._on_closed = on_closed
        self._on_refused = on_refused
        # Those of the incomplete responses. The application handles the first; uvicorn's `cycle` is only the last.
        self._cycles: deque[RequestResponseCycle] = deque()
        self.parser = UpgradeIgnoringParser(self, self._resume_after_upgrade)

    @property
    def held_bytes(self) -> int:
        """The bytes of the latest head, and of the bodies that the application has not read yet."""
        return self._head_bytes + self._unparsed_bytes + sum(len(cycle.body) for cycle in self._cycles)

    @property
    def expects_request(self) -> bool:
        """Whether a request is arriving, or the first one has not begun."""
        return self._receiving_head or self.cycle is None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        transport = ResponseTransport(transport, self.loop, self._may_receive_more)
        super().connection_made(transport)
        self._read_timeout = ReadTimeout(self.loop.call_later, self._handle_read_timeout)
        self._write_timeout = WriteTimeout(transport, self.loop.call_later)
        self._memory.add(self)
        self._read_timeout.start(HEAD_LIMIT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()  # uvicorn does so only if there is no error
        self._read_timeout.cancel()
        self._write_timeout.cancel()
        self._memory.discard(self)
        self._on_closed()
        super().connection_lost(exc)
        for cycle in self._cycles:  # uvicorn informs only the newest
            _disconnect(cycle)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timeout.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_timeout.cancel()

    def data_received(self, data: bytes) -> None:
        if self._last_error is not None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        for start in range(0, len(data), _PARSED_BYTES):
            self._parse(data[start : start + _PARSED_BYTES])
            if self._last_error is not None or self.transport.is_closing():
                return
        if not self._read_timeout.is_running and self._is_idle():
            if self._receiving_head or self._unparsed_bytes:
                self._read_timeout.start(HEAD_LIMIT_S)
            else:  # the rest of a body whose response was early
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        self._memory.count_received(len(data))

    def drop(self) -> None:
        """Free this connection's memory: its first incompletely read request gets a 503, later ones get no response.

        A request that the application has read completely still gets its response.
        """
        kept = next((number for number, cycle in enumerate(self._cycles) if cycle.body or cycle.more_body), None)
        if self.transport.is_closing():
            self.transport.abort()  # it lingers
        elif kept is not None or (self._receiving_message and self._last_error is None):
            error = MemoryFull("The memory for requests is in use. Try again later.", retry_after_s=1)
            self._refuse(error, len(self._cycles) if kept is None else kept)
        elif self._is_idle():
            self._close()

    def on_message_begin(self) -> None:
        if self._ignores_callbacks:
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise self._store_error(BadRequest(f"At most {MAX_PIPELINED} requests may be pipelined on a connection."))
        self._receiving_head = self._receiving_message = True
        self._head_bytes = self._fields = 0
        if not self.flow.write_paused:
            self._write_timeout.cancel()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._ignores_callbacks:
            return
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._ignores_callbacks:
            return
        self._fields += 1
        self._count_head(len(name) + len(value))
        if self._receiving_head:  # trailers never become headers, which a proxy has checked (RFC 9110, section 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._ignores_callbacks:
            return
        self._unparsed_bytes = 0
        if self.parser.get_method() == b"CONNECT":
            raise self._store_error(BadRequest("The gateway is not a proxy. Send a request for one of its own paths."))
        self.expect_100_continue &= self.parser.get_http_version() != "1.0"  # RFC 9110, section 10.1.1
        authority = find_authority(self.url)
        if authority is not None:  # a missing or repeated Host remains one
            self.headers[:] = [(name, authority if name == b"host" else value) for name, value in self.headers]
        self.url = add_path(self.url)
        super().on_headers_complete()
        self._cycles.append(self.cycle)
        self._receiving_head = False
        self._read_timeout.cancel()
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
            self._read_timeout.cancel()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._cycles.popleft()
        super().on_response_complete()
        if not self.flow.write_paused:
            self._write_timeout.start()
        if self._last_error is not None:
            if self._is_idle():
                self._respond_and_close(self._last_error)
        elif self._receiving_message and self.cycle.response_complete:
            self._read_timeout.start(BODY_REST_LIMIT_S)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(LAST_READ_S, self._close)

    def shutdown(self) -> None:
        super().shutdown()
        self._write_timeout.start()

    def _parse(self, data: bytes) -> None:
        """Parse at most _PARSED_BYTES; refuse what is not valid HTTP, and what the callbacks above raise."""
        self._unparsed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserError:
            self._reject(self._error or BadRequest("The request is not valid HTTP. Check what the client sends."))
            return
        if self._unparsed_bytes > MAX_HEAD_BYTES and self._receiving_message:
            self._reject(head_too_large())

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES or self._fields > MAX_HEADERS:
            raise self._store_error(head_too_large())

    def _is_idle(self) -> bool:
        """Whether every request so far has its response."""
        return not self._cycles

    def _may_receive_more(self) -> bool:
        """Whether the client may still be sending a request, or more behind one that is refused."""
        return self._receiving_message or self._last_error is not None

    def _resume_after_upgrade(self, data: bytes) -> None:
        """Parse what follows the head of an upgrade request as if the request had offered no upgrade."""
        self.parser = UpgradeIgnoringParser(self, self._resume_after_upgrade)
        if self._ignores_callbacks:
            self.parser.feed_data(build_framing_head(self.headers))
            self._ignores_callbacks = False
        self.parser.feed_data(data)

    def _store_error(self, error: ApiError) -> ApiError:
        """Keep the error for `_parse`."""
        self._error = error
        return error

    def _reject(self, error: Refusal) -> None:
        """Refuse the request that is arriving; the requests before it get their responses first."""
        begun = self._receiving_message and not self._receiving_head and not self._is_idle()
        self._refuse(error, len(self._cycles) - begun)

    def _refuse(self, error: Refusal, kept: int) -> None:
        """Reject all requests but the first `kept` ones, and close the connection.

        The first `kept` requests get their responses; then `error` is sent in response to the next request. The
        application receives no more data of the rejected requests.
        """
        self._last_error = error
        self._read_timeout.cancel()
        refused = [self._cycles.pop() for _ in range(kept, len(self._cycles))]
        self.pipeline = deque(entry for entry in self.pipeline if entry[0] not in refused)
        for cycle in refused:
            cycle.body.clear()
            _disconnect(cycle)
        handled = refused[-1] if refused and not kept else None  # the one that the application handles
        if handled is None:
            self._on_refused(error.code)
            has_response = self._receiving_message and not self._receiving_head
        else:
            handled.scope["state"]["problem_code"] = error.code
            has_response = handled.response_started
        if not kept and has_response:
            self._close()
        elif not kept:
            self._respond_and_close(error)

    def _respond_and_close(self, error: Refusal) -> None:
        if not self.transport.is_closing():
            self.transport.write(render_refusal(error))
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self._write_timeout.start()

    def _handle_read_timeout(self) -> None:
        if self.transport.is_closing():
            return
        if self._receiving_head:
            self._reject(RequestTooSlow("The request arrived too slowly. Send it again over a faster connection."))
        else:
            self._close()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Let the application receive a disconnect; what it still sends is discarded."""
    cycle.disconnected = True
    cycle.message_event.set()
