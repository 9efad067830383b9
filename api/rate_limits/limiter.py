"""Rate limits of the routes: slowapi's decorators over sliding windows that never block the event loop.

slowapi is restricted (docs/adr/0003). It reads neither `.env` nor the environment. It checks nothing itself, because it
would call its storage synchronously. Limits are shared by name instead of by path, and this module writes the headers.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from http import HTTPStatus
from typing import Any

from limits import RateLimitItem, parse
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from slowapi.wrappers import Limit
from starlette.requests import Request
from starlette.responses import Response

from api.http.audit import record_event
from api.http.problems import respond_with_problem
from api.rate_limits.callers import caller_address, caller_key_id, caller_network, caller_subject
from api.rate_limits.windows import LimitResult, LocalWindows, Windows
from monitoring.metrics import Metrics

TOKEN_LIMIT = "token"  # noqa: S105  (the name of a limit)
PASSWORD_LIMIT = "password"  # noqa: S105  (the name of a limit)
PREDICT_LIMIT = "predict"
REQUEST_LIMIT = "requests"
OAUTH_LIMIT = "oauth"
KEY_LIMIT = "key"

FindCaller = Callable[[Request], str]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class CallerLimits(Limiter):
    """Limits for each caller, counted in `windows`.

    `predict_rate` is the rate of a principal's predictions on all routes, and `request_rate` that of its requests to
    all routes that have no rate of their own.
    """

    def __init__(self, windows: Windows, request_rate: str, predict_rate: str) -> None:
        super().__init__(key_func=caller_address, storage_uri="memory://", auto_check=False)
        self._windows = windows
        self._request_item = parse(request_rate)
        self._predict_item = parse(predict_rate)

    def get_app_config(self, key: str, default_value: Any = None) -> Any:
        """Return the default: slowapi would read RATELIMIT_* from the environment."""
        return default_value

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the windows, and close them when the context ends."""
        await self._windows.open()
        try:
            yield
        finally:
            await self._windows.close()

    async def close_connections(self) -> None:
        """Close idle connections to the store until the next request."""
        await self._windows.close_connections()

    @property
    def shared(self) -> bool:
        """Whether requests are counted outside of this process."""
        return not isinstance(self._windows, LocalWindows)

    async def check_store(self) -> str | None:
        """Return "reduced" if the store is unavailable, so that only a part of each rate is allowed; else None."""
        await self._windows.open()
        return "reduced" if self._windows.reduced else None

    async def check_request(self, request: Request) -> None:
        """Count a request of the authenticated principal. Raises RateLimitExceeded."""
        await self._check(request, self._request_item, REQUEST_LIMIT, caller_subject)

    async def check_predictions(self, request: Request, count: int = 1) -> None:
        """Count predictions against the rates of the API key and the principal. Each window counts all or none of them.

        The API key's window comes first. If the principal's window then rejects the predictions, they have been counted
        only against this key, and not against the principal's other credentials. Raises RateLimitExceeded.
        """
        key_rate = request.scope["state"]["principal"].rate
        if key_rate is not None:
            await self._check(request, parse(key_rate), KEY_LIMIT, caller_key_id, count)
        await self._check(request, self._predict_item, PREDICT_LIMIT, caller_subject, count)

    def per_principal(self, rate: str, name: str) -> Decorator:
        """Limit each principal to `rate` over all routes that share `name`."""
        return self._limit(rate, name, caller_subject)

    def per_address(self, rate: str, name: str) -> Decorator:
        """Limit each client address, or IPv6 network, to `rate` over all routes that share `name`."""
        return self._limit(rate, name, caller_network)

    def _limit(self, rate: str, name: str, find_caller: FindCaller) -> Decorator:
        register: Decorator = self.shared_limit(rate, scope=name, key_func=find_caller)
        item = parse(rate)

        def decorate(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(endpoint)
            async def limited(**arguments: Any) -> Any:
                await self._check(arguments["request"], item, name, find_caller)
                return await endpoint(**arguments)

            return register(limited)

        return decorate

    async def _check(
        self, request: Request, item: RateLimitItem, name: str, find_caller: FindCaller, number: int = 1
    ) -> None:
        """Count the request, or `number` of them. Raises RateLimitExceeded."""
        caller = find_caller(request)
        result = await self._windows.hit(item, name, caller, number)
        earlier = request.scope["state"].get("limit_results", [])
        request.scope["state"]["limit_results"] = [(name, result), *(each for each in earlier if each[0] != name)]
        request.state.view_rate_limit = result.item, [caller, name]  # where slowapi stores it
        if not result.allowed:
            raise RateLimitExceeded(Limit(result.item, find_caller, name, False, None, None, None, 1, False))

    @staticmethod
    def headers(state: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield `RateLimit-Policy`, `RateLimit` (draft-ietf-httpapi-ratelimit-headers) and, with 429, `Retry-After`."""
        results: list[tuple[str, LimitResult]] = state.get("limit_results", [])
        if not results:
            return
        policies = (f'"{name}";q={result.item.amount};w={result.item.get_expiry()}' for name, result in results)
        states = (f'"{name}";r={result.remaining};t={_seconds_to_reset(result)}' for name, result in results)
        yield "RateLimit-Policy", ", ".join(policies)
        yield "RateLimit", ", ".join(states)
        if state.get("problem_code") == "rate_limited":
            yield "Retry-After", str(_seconds_to_reset(results[0][1]))


def limit_handler(metrics: Metrics) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Make the handler of RateLimitExceeded: it counts and records the request, and responds with 429."""

    async def handle(request: Request, _: Exception) -> Response:
        name = request.state.limit_results[0][0]
        metrics.rate_limited.labels(name).inc()
        await record_event(request, "access", "rate_limited", limit=name)
        detail = "Too many requests. Wait for the number of seconds in Retry-After."
        return respond_with_problem(request.scope, HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail)

    return handle


def _seconds_to_reset(result: LimitResult) -> int:
    return max(1, math.ceil(result.reset_at - time.monotonic()))
