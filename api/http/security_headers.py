"""Headers that every response carries, inside the application and outside of it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

_LOAD_NOTHING = "default-src 'none'; frame-ancestors 'none'"


def set_security_headers(headers: MutableHeaders, request_id: str) -> None:
    """Set the request id and the security headers. A page keeps the Content-Security-Policy that it has set."""
    headers["X-Request-ID"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers.setdefault("Content-Security-Policy", _LOAD_NOTHING)
    headers.setdefault("Cache-Control", "no-store")
