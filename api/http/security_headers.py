"""Headers that every response carries, inside the application and outside of it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

LOAD_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# FastAPI's documentation page loads its script and style from this one address.
LOAD_DOCS = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src https://cdn.jsdelivr.net; "
    "img-src https://fastapi.tiangolo.com data:; connect-src 'self'; frame-ancestors 'none'"
)


def set_security_headers(headers: MutableHeaders, request_id: str, content_policy: str = LOAD_NOTHING) -> None:
    """Set the request id and the security headers; `content_policy` is the Content-Security-Policy."""
    headers["X-Request-ID"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Content-Security-Policy"] = content_policy
    headers.setdefault("Cache-Control", "no-store")
