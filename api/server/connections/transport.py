"""Sending responses to a client, and closing a connection whose client may still send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_S = 2.0  # for the client to read the response, and to close the connection itself


class ResponseTransport(asyncio.Transport):
    """A transport that sends the head of a response with its body, and lets a client that `still_sends` read it.

    uvicorn writes a head and a body separately, and uvloop sends each at once. So `write` holds data back until more
    follows, or the event loop has run its callbacks once more: a response takes one system call instead of two, and
    wakes its client once.

    When a socket is closed with unread data, the kernel resets the connection, and the client may lose the response
    (RFC 9112, section 9.6). So `close` ends only the output, and closes the socket when the client has closed it, or
    after LINGER_S. TLS cannot end only the output, but uvloop itself discards data until a TLS client has closed.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, still_sends: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._still_sends = still_sends
        self._held = b""
        self._timer: asyncio.TimerHandle | None = None

    def is_closing(self) -> bool:
        """Whether `close` was called or the connection is lost; the protocol then discards what it receives."""
        return self._timer is not None or self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        if self._transport.is_closing() or not self._transport.can_write_eof() or not self._still_sends():
            self._transport.close()
        elif self._timer is None:
            self._timer = self._loop.call_later(LINGER_S, self._transport.close)
            self._transport.write_eof()
            self._transport.resume_reading()

    def abort(self) -> None:
        self._held = b""
        self._transport.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._held:
            self._held += data
            self._flush()
        else:
            self._held = bytes(data)
            self._loop.call_soon(self._flush)

    def get_write_buffer_size(self) -> int:
        return len(self._held) + self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)
