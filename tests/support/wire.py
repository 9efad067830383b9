"""A client that writes raw HTTP/1.1 requests, including ones that no HTTP library would send."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from tests.support.access_token import FreshToken

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Wire:
    """Sends bytes to a gateway's port, with a valid token in the heads that it makes."""

    port: int
    fresh_token: FreshToken

    @property
    def token(self) -> str:
        return self.fresh_token.value

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """The head of a request with a token."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.token}", *headers]
        return "\r\n".join([*lines, "", ""]).encode()

    def upload_head(self, content_type: str, *headers: str) -> bytes:
        """The head of a prediction; without further headers its body is chunked."""
        more = headers or ("Transfer-Encoding: chunked",)
        return self.head("POST", "/v1/predictions", f"Content-Type: {content_type}", *more)

    def exchange(self, *data: bytes) -> tuple[int, dict[str, Any]]:
        """Send the data on a new connection; return status and JSON of the response.

        The gateway may respond and close before it has read all of the data.
        """
        with closing(self.connect()) as connection:
            return self.exchange_on(connection, data)

    @staticmethod
    def exchange_on(connection: socket.socket, data: Iterable[bytes]) -> tuple[int, dict[str, Any]]:
        """`exchange` on an open connection."""
        with suppress(OSError):
            for part in data:
                connection.sendall(part)
        received = receive_response(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"\r\nx-request-id: " in head.lower(), received[:500]
        document: dict[str, Any] = json.loads(body)
        return int(head.split()[1]), document


def receive_response(connection: socket.socket) -> bytes:
    """Read until a whole response has been received or the gateway has closed the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while not _is_whole(received) and (chunk := connection.recv(65536)):
            received += chunk
    return received


def receive_until_closed(connection: socket.socket) -> bytes:
    """Read until the gateway closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def _is_whole(received: bytes) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(separator and length and len(body) >= int(length[1]))
