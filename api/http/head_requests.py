"""HEAD on every route that has GET (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """Routes HEAD as GET. The server, which still sees HEAD, sends the headers of the response without its content."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        routed = {**scope, "method": "GET"}
        try:
            await self._app(routed, receive, send)
        finally:
            if "route" in routed:  # for the metrics
                scope["route"] = routed["route"]
