"""Requests that offer to upgrade the connection, as Java's HTTP client does with `Upgrade: h2c`.

The gateway ignores the offer (RFC 9110, section 7.8). httptools assumes that the upgrade takes place: it reports the
message as complete after its headers, and raises HttpParserUpgrade instead of reading on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import httptools

_FRAMING_HEADERS = (b"content-length", b"transfer-encoding")
Headers = Iterable[tuple[bytes, bytes]]


class UpgradeIgnoringParser(httptools.HttpRequestParser):
    """Passes what follows the headers of an upgrade request to `resume`, instead of raising HttpParserUpgrade."""

    def __init__(self, protocol: object, resume: Callable[[bytes], None]) -> None:
        super().__init__(protocol)
        # As in uvicorn: the first of two pipelined requests gets its response even if the second is invalid.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._resume = resume

    def feed_data(self, data: Any) -> None:
        """Parse the bytes in `data`. Raises httptools.HttpParserError."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._resume(data[upgrade.args[0] :])


def has_body(headers: Headers) -> bool:
    """Return whether a request with these headers has a body that is not empty."""
    framing = dict(header for header in headers if header[0] in _FRAMING_HEADERS)
    return b"transfer-encoding" in framing or bool(framing.get(b"content-length", b"").strip(b" \t0"))


def build_framing_head(headers: Headers) -> bytes:
    """Return a request head after which a parser expects the body of a request with these headers."""
    framing = (b"%b: %b\r\n" % header for header in headers if header[0] in _FRAMING_HEADERS)
    return b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing)


def add_path(target: bytes) -> bytes:
    """Return the request target with the path `/` if it is a URI without one (RFC 9112, section 3.2.2)."""
    if target.startswith(b"/"):
        return target
    uri, mark, query = target.partition(b"?")
    _, separator, rest = uri.partition(b"://")
    return uri + b"/" + mark + query if separator and b"/" not in rest else target


def find_authority(target: bytes) -> bytes | None:
    """Return the host and port of a request target that is a URI. They replace Host (RFC 9112, section 3.2.2)."""
    _, separator, rest = target.partition(b"://")
    return re.split(rb"[/?#]", rest, maxsplit=1)[0] if separator and not target.startswith(b"/") else None
