"""Rate limits: slowapi's decorators over the `limits` engine, with the standard headers.

Fenced (docs/adr/0003): slowapi's own reading of `.env` and the environment is off, limits are shared by name
rather than by path, and the headers are ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

from limits import RateLimitItem
from slowapi import Limiter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.errors import answer
from monitoring.metrics import Metrics

TOKEN_LIMIT = "token"  # noqa: S105  (the name of a limit)
PREDICT_LIMIT = "predict"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class CallerLimits(Limiter):
    """Limits per caller, kept in this process's memory."""

    def __init__(self) -> None:
        super().__init__(key_func=caller_address, storage_uri="memory://", strategy="sliding-window-counter")

    def get_app_config(self, key: str, default_value: Any = None) -> Any:
        """Settings have one reader; slowapi would read RATELIMIT_* from the environment on its own."""
        return default_value

    def per_principal(self, rate: str, name: str) -> Decorator:
        """At most `rate` requests of one principal over all the routes that share `name`."""
        return self._shared(rate, name, caller_subject)

    def per_address(self, rate: str, name: str) -> Decorator:
        """At most `rate` requests from one client address over all the routes that share `name`."""
        return self._shared(rate, name, caller_address)

    def _shared(self, rate: str, name: str, key: Callable[[Request], str]) -> Decorator:
        decorator: Decorator = self.shared_limit(rate, scope=name, key_func=key)
        return decorator

    def headers(self, state: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), `Retry-After` once refused."""
        applied: tuple[RateLimitItem, list[str]] | None = state.get("view_rate_limit")
        if applied is None:
            return
        item, (key, name) = applied
        window = self.limiter.get_window_stats(item, key, name)
        reset_s = max(1, math.ceil(window.reset_time - time.time()))
        yield "RateLimit-Policy", f'"{name}";q={item.amount};w={item.get_expiry()}'
        yield "RateLimit", f'"{name}";r={max(0, window.remaining)};t={reset_s}'
        if state.get("problem_code") == "rate_limited":
            yield "Retry-After", str(reset_s)


def limit_handler(metrics: Metrics) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Count a refused request under the name of its limit, and answer 429."""

    async def refused(request: Request, _: Exception) -> Response:
        name = request.state.view_rate_limit[1][1]
        metrics.rate_limited.labels(name).inc()
        detail = "Too many requests. Wait as many seconds as Retry-After says."
        if name == TOKEN_LIMIT:
            request.state.problem_code = "rate_limited"
            body = {"error": "temporarily_unavailable", "error_description": detail}
            return JSONResponse(body, HTTPStatus.TOO_MANY_REQUESTS)
        return answer(request, HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail)

    return refused


def caller_subject(request: Request) -> str:
    """The authenticated principal's subject."""
    subject: str = request.state.principal.subject
    return subject


def caller_address(request: Request) -> str:
    """The peer's address; a proxy's word for it counts only where the server was told to trust that proxy."""
    return request.client.host if request.client else "unknown"
