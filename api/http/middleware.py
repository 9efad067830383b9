"""What surrounds every request: its id, its headers, its metric, its log line, and the cap on its body."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Iterable
from http import HTTPMethod, HTTPStatus
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTooLarge, RequestTooSlow
from api.http.draining import Draining
from api.http.errors import CLIENT_LEFT, problem
from monitoring.metrics import Metrics
from monitoring.sentry import ErrorReporter

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_METHODS = frozenset(HTTPMethod)
_QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})
_DOCS_ROUTES = frozenset({"/docs", "/docs/oauth2-redirect"})
MAX_DOCUMENT_BYTES = 64 * 1024
# The gateway waits this long for a body, and another second for each so many bytes that have come.
BODY_GRACE_S = 10.0
BODY_BYTES_A_SECOND = 32 * 1024
_NOTHING_LOADS = "default-src 'none'; frame-ancestors 'none'"
# The documentation page of FastAPI loads its script and style from this one address.
_DOCS_LOAD = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src https://cdn.jsdelivr.net; "
    "img-src https://fastapi.tiangolo.com data:; connect-src 'self'; frame-ancestors 'none'"
)

log = structlog.get_logger("atalaya.access")

HeaderSource = Callable[[dict[str, Any]], Iterable[tuple[str, str]]]


class Observe:
    """Outermost: no answer leaves without a request id, security headers, a duration and a log line.

    `extra_headers` makes headers from the request's state (the limits' ones). An error that nothing below
    has mapped is logged, reported and answered with a 500 that says nothing of its cause.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        reporter: ErrorReporter,
        draining: Draining,
        extra_headers: HeaderSource,
        https: bool,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._reporter = reporter
        self._draining = draining
        self._extra_headers = extra_headers
        self._https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        started = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(raw=message["headers"]), scope)
            await send(message)

        active = self._metrics.active_requests.labels(method)
        active.inc()
        try:
            await self._app(scope, receive, send_observed)
        except ClientDisconnect:
            state["problem_code"] = "client_left"
            status = status or CLIENT_LEFT
        except Exception as error:
            self._report(error, scope)
            if status:
                raise
            await self._internal_error(request_id)(scope, receive, send_observed)
        finally:
            active.dec()
            self._record(scope, method, status, time.perf_counter() - started)

    def _add_headers(self, headers: MutableHeaders, scope: Scope) -> None:
        set_security_headers(
            headers, scope["state"]["request_id"], _DOCS_LOAD if scope["path"] in _DOCS_ROUTES else _NOTHING_LOADS
        )
        if self._https:
            headers["Strict-Transport-Security"] = "max-age=63072000; includeSubDomains"
        for name, value in self._extra_headers(scope["state"]):
            headers[name] = value
        if self._draining.begun:
            headers["Connection"] = "close"

    def _report(self, error: Exception, scope: Scope) -> None:
        log.exception("unhandled_error", route=_route(scope))
        self._reporter.capture(error, {"request_id": scope["state"]["request_id"], "route": _route(scope)})

    @staticmethod
    def _internal_error(request_id: str) -> ASGIApp:
        detail = "The gateway failed. Try again; if it lasts, report the request_id."
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail, request_id)

    def _record(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        route = _route(scope)
        self._metrics.request_duration.labels(method, route, str(status)).observe(seconds)
        level = "debug" if route in _QUIET_ROUTES else "info"
        more = {"code": code} if (code := scope["state"].get("problem_code")) else {}
        getattr(log, level)(
            "request", method=method, route=route, status=status, duration_ms=round(seconds * 1000, 2), **more
        )


class BodyLimit:
    """Refuses a body over `max_bytes`: by its announced length at once, else while it streams; and one that trickles.

    Only the paths in `streamed` read a body themselves, and judge its announced length: that goes on record.
    Everywhere else FastAPI reads it whole, of whatever type it is: there it may have `max_document_bytes`.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_document_bytes: int, streamed: frozenset[str]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_document_bytes = max_document_bytes
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in self._streamed:
            await self._app(scope, _bounded(receive, self._max_bytes), send)
        elif exceeds(Headers(scope=scope), self._max_document_bytes):
            await self._refuse(too_large(self._max_document_bytes), scope, receive, send)
        else:
            await self._app(scope, _bounded(receive, self._max_document_bytes), send)

    async def _refuse(self, error: BodyTooLarge, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["problem_code"] = BodyTooLarge.code
        answer = problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            BodyTooLarge.code,
            str(error),
            scope["state"]["request_id"],
            {"Connection": "close"},
        )
        await answer(scope, receive, send)


def _bounded(receive: Receive, max_bytes: int) -> Receive:
    """`receive`, which raises BodyTooLarge or RequestTooSlow; the time that the application takes does not count."""
    received, waited_s, whole = 0, 0.0, False

    async def receive_bounded() -> Message:
        nonlocal received, waited_s, whole
        if whole:
            return await receive()
        started = time.monotonic()
        try:
            async with asyncio.timeout(BODY_GRACE_S + received / BODY_BYTES_A_SECOND - waited_s):
                message = await receive()
        except TimeoutError:
            raise RequestTooSlow("The body arrived too slowly. Send a smaller one, or over a better line.") from None
        waited_s += time.monotonic() - started
        received += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if received > max_bytes:
            raise too_large(max_bytes)
        return message

    return receive_bounded


def set_security_headers(headers: MutableHeaders, request_id: str, loads: str = _NOTHING_LOADS) -> None:
    """What every answer carries; `loads` is the policy of what a browser may load for it."""
    headers["X-Request-ID"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Content-Security-Policy"] = loads
    headers.setdefault("Cache-Control", "no-store")


def exceeds(headers: Headers, max_bytes: int) -> bool:
    """Whether the announced length, if there is one, is too great, or none."""
    announced = headers.get("content-length", "0")
    return not announced.isdecimal() or int(announced) > max_bytes


def too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body may have {max_bytes} bytes at most. Send a smaller one.")


def _request_id(offered: str | None) -> str:
    """The caller's id where it is harmless to log, else a new one."""
    return offered if offered and _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex


def _route(scope: Scope) -> str:
    """The route's template; never the path, which callers choose."""
    return getattr(scope.get("route"), "path", "unmatched")
