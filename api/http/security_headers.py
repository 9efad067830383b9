"""Headers that every response carries, whether the application or the server sends it."""

from __future__ import annotations

RawHeaders = list[tuple[bytes, bytes]]

_FIXED = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_DEFAULTS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


def set_security_headers(headers: RawHeaders, request_id: str) -> None:
    """Add the request id and the security headers. A page keeps the Content-Security-Policy that it has set."""
    present = {name for name, _ in headers}
    headers += ((b"x-request-id", request_id.encode()), *_FIXED)
    headers += (header for header in _DEFAULTS if header[0] not in present)
