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

from limits import RateLimitItem, parse
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from slowapi.wrappers import Limit
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.errors import answer
from monitoring.metrics import Metrics

TOKEN_LIMIT = "token"  # noqa: S105  (the name of a limit)
PREDICT_LIMIT = "predict"
KEY_LIMIT = "key"

Applied = tuple[RateLimitItem, list[str]]
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

    async def own_rate(self, request: Request) -> None:
        """A dependency that holds an API key to the rate it was given. Raises RateLimitExceeded."""
        principal = request.state.principal
        if principal.rate is None:
            return
        item = parse(principal.rate)
        applied = item, [principal.key_id, KEY_LIMIT]
        if not self.limiter.hit(item, principal.key_id, KEY_LIMIT):
            request.state.view_rate_limit = applied
            raise RateLimitExceeded(Limit(item, caller_subject, KEY_LIMIT, False, None, None, None, 1, False))
        request.state.key_rate_limit = applied

    def headers(self, state: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), `Retry-After` once refused."""
        applied: list[Applied] = [state[name] for name in ("view_rate_limit", "key_rate_limit") if state.get(name)]
        if not applied:
            return
        policies, standings, resets_s = zip(*(self._standing(*one) for one in applied), strict=True)
        yield "RateLimit-Policy", ", ".join(policies)
        yield "RateLimit", ", ".join(standings)
        if state.get("problem_code") == "rate_limited":
            yield "Retry-After", str(resets_s[0])

    def _standing(self, item: RateLimitItem, identifiers: list[str]) -> tuple[str, str, int]:
        """A limit's policy, what is left of it, and the seconds until it begins anew."""
        key, name = identifiers
        window = self.limiter.get_window_stats(item, key, name)
        reset_s = max(1, math.ceil(window.reset_time - time.time()))
        policy = f'"{name}";q={item.amount};w={item.get_expiry()}'
        return policy, f'"{name}";r={max(0, window.remaining)};t={reset_s}', reset_s


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
