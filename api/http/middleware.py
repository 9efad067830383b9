"""Observation of every request: its id, its response headers, its metrics and its log line."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPMethod, HTTPStatus
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ShuttingDown
from api.http.addresses.host_names import PROBES
from api.http.draining import Draining
from api.http.problems import respond_with_problem
from api.http.security_headers import RawHeaders, set_security_headers
from api.services.background.activity import Activity
from monitoring.reporting.telemetry import Telemetry
from monitoring.tracing.tracer import FinishedRequest

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_METHODS = frozenset(HTTPMethod)
_INTERNAL_ERROR = "internal_error"
_QUIET_ROUTES = PROBES | {"/metrics"}

log = structlog.get_logger("atalaya.access")

_UNMATCHED = "unmatched"
CLIENT_LEFT = 499  # nginx's status for a client that disconnected before the response

HeaderSource = Callable[[dict[str, Any]], Iterable[tuple[str, str]]]


class Observe:
    """Gives every response a request id and security headers, and records its duration, log line and spans.

    `extra_headers` makes further headers from the request's state, such as those of the rate limits. An error without a
    handler is logged, reported and turned into a 500 response that does not reveal the cause. A request that the server
    cancels because it shuts down gets a 503, unless its response has begun.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        telemetry: Telemetry,
        draining: Draining,
        activity: Activity,
        extra_headers: HeaderSource,
        https: bool,
    ) -> None:
        self._app = app
        self._get_active = cache(telemetry.metrics.active_requests.labels)
        self._get_duration = cache(telemetry.metrics.request_duration.labels)
        self._reporter = telemetry.reporter
        self._tracer = telemetry.tracer
        self._draining = draining
        self._activity = activity
        self._extra_headers = extra_headers
        self._https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        headers = Headers(scope=scope)
        state["request_id"] = request_id = _request_id(headers.get("x-request-id"))
        trace = self._tracer.begin(headers.get("traceparent"))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, **(trace.describe_context() if trace else {}))
        if trace is not None and trace.context.sampled:
            state["trace"] = trace
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        scheme = scope["scheme"]  # http or https: TrustedProxies accepts nothing else
        started = time.perf_counter()
        status = 0
        failure: Exception | None = None

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message["headers"], scope)
            await send(message)

        active = self._get_active(method, scheme)
        active.inc()
        self._activity.begin_request()
        try:
            await self._app(scope, receive, send_observed)
        except ClientDisconnect:
            state.setdefault("problem_code", "client_left")
            status = status or CLIENT_LEFT
        except asyncio.CancelledError:
            # The server has no time left. Not raised again, because it would log a traceback for each request.
            state["problem_code"] = ShuttingDown.code
            if not status:
                await _shutting_down(scope)(scope, receive, send_observed)
        except Exception as error:
            state["problem_code"] = _INTERNAL_ERROR
            failure = error
            self._report(error, scope)
            if status:
                raise
            await self._internal_error(scope)(scope, receive, send_observed)
        finally:
            active.dec()
            self._activity.end_request()
            self._record(scope, method, status, time.perf_counter() - started, failure)

    def _add_headers(self, headers: RawHeaders, scope: Scope) -> None:
        set_security_headers(headers, scope["state"]["request_id"])
        if self._https:
            headers.append((b"strict-transport-security", b"max-age=63072000; includeSubDomains"))
        for name, value in self._extra_headers(scope["state"]):
            headers.append((name.lower().encode(), value.encode()))
        if self._draining.begun:
            headers[:] = [header for header in headers if header[0] != b"connection"]
            headers.append((b"connection", b"close"))

    def _report(self, error: Exception, scope: Scope) -> None:
        principal = scope["state"].get("principal")
        tags = {"request_id": scope["state"]["request_id"], "route": _find_route(scope)}
        self._reporter.capture(error, tags, principal.subject if principal is not None else None)

    @staticmethod
    def _internal_error(scope: Scope) -> ASGIApp:
        detail = "The gateway failed. Try again; if it fails again, report the request_id."
        return respond_with_problem(scope, HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL_ERROR, detail)

    def _record(self, scope: Scope, method: str, status: int, seconds: float, failure: Exception | None) -> None:
        status = status or HTTPStatus.INTERNAL_SERVER_ERROR.value  # which the server sends if there is no response
        route, code = _find_route(scope, status), scope["state"].get("problem_code", "")
        error_type = _find_error_type(status, code)
        trace = scope["state"].get("trace")
        # Metrics shared by several processes have no exemplars.
        exemplar = {"trace_id": trace.context.trace_id} if trace is not None and trace.context.sampled else None
        self._get_duration(method, route, str(status), scope["scheme"], error_type).observe(seconds, exemplar)
        if trace is not None:
            request_id = scope["state"]["request_id"]
            self._tracer.finish(trace, FinishedRequest(method, route, status, scope["scheme"], request_id))
        line: dict[str, object] = {
            "message": f"{method} {route} {status}",
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "duration_ms": round(seconds * 1000, 2),
        }
        if code:
            line["code"] = code
        if failure is not None:
            log.error("request", exc_info=failure, **line)
        elif route in _QUIET_ROUTES:
            log.debug("request", **line)
        else:
            log.info("request", **line)


def _shutting_down(scope: Scope) -> ASGIApp:
    error, headers = ShuttingDown(), {"Retry-After": "1", "Connection": "close"}
    return respond_with_problem(scope, HTTPStatus.SERVICE_UNAVAILABLE, error.code, str(error), headers)


def _request_id(offered: str | None) -> str:
    """Return the caller's id if it is safe to log, else a new one."""
    return offered if offered and _REQUEST_ID.fullmatch(offered) else secrets.token_hex(16)


def _find_error_type(status: int, code: str) -> str:
    """Return OpenTelemetry's error.type: the code of a server error, and "" for an error of the caller."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return code or str(status)
    return code if code == _INTERNAL_ERROR else ""  # a response that broke off after its status


def _find_route(scope: Scope, status: int = 0) -> str:
    """Return the route's template, or "unmatched"; never the path, which callers choose.

    A method that the route does not allow matches nothing: a series for each would multiply the number of series.
    """
    matched = status != HTTPStatus.METHOD_NOT_ALLOWED
    return getattr(scope.get("route"), "path", _UNMATCHED) if matched else _UNMATCHED
