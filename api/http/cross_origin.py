"""Cross-origin requests: which pages of other sites may read responses (CORS, part of the Fetch standard).

This replaces Starlette's middleware, whose rejections are plain text instead of problem documents. The response to an
unexpected error would be made outside of that middleware, without CORS headers, so pages could not read its request id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = "DELETE, GET, HEAD, PATCH, POST, PUT"
_REQUEST_HEADERS = (
    "Accept, Accept-Language, Authorization, Content-Type, Inference-Header-Content-Length, Traceparent, X-API-Key, "
    "X-Request-ID, X-Request-Timeout"
)
_READABLE_HEADERS = (
    "Allow, Inference-Header-Content-Length, Link, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, "
    "X-Explained-Label, X-Prediction-Abstained, X-Prediction-Confidence, X-Prediction-ID, X-Prediction-Label, "
    "X-Prediction-Reason, X-Request-ID"
)
_PREFLIGHT_SECONDS = "600"
_ALLOW_ORIGIN = "Access-Control-Allow-Origin"
_VARY = ("Vary", "Origin")

Pairs = tuple[tuple[str, str], ...]


class CrossOrigin:
    """Responds to preflight requests before authentication, and chooses the CORS headers of other responses.

    `origins` may read responses; "*" allows every origin. Credentials that a browser adds by itself (cookies,
    client certificates) are never allowed: callers send theirs in a header.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._any = "*" in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        allowed = self._describe_origin(headers.get("origin"))
        if scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers:
            await Response(status_code=HTTPStatus.NO_CONTENT, headers=_describe_preflight(allowed))(
                scope, receive, send
            )
            return
        scope["state"]["cross_origin"] = (*allowed, ("Access-Control-Expose-Headers", _READABLE_HEADERS))
        await self._app(scope, receive, send)

    def _describe_origin(self, origin: str | None) -> Pairs:
        """Return the headers that allow the origin, or only the one that makes caches separate origins."""
        if self._any:
            return ((_ALLOW_ORIGIN, "*"),)
        return (_VARY, (_ALLOW_ORIGIN, origin)) if origin in self._origins and origin is not None else (_VARY,)


def cross_origin_headers(state: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Return the headers that `CrossOrigin` has chosen for the response to the request with this state."""
    chosen: Pairs = state.get("cross_origin", ())
    return chosen


def _describe_preflight(allowed: Pairs) -> dict[str, str]:
    """Return the headers of the response to a preflight request, which the browser compares with its request."""
    headers = dict(allowed)
    if _ALLOW_ORIGIN in headers:
        headers["Access-Control-Allow-Methods"] = _METHODS
        headers["Access-Control-Allow-Headers"] = _REQUEST_HEADERS
        headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
    return headers
