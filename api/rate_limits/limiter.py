"""Rate limits: slowapi's decorators over sliding windows that are asked without holding up the event loop.

Fenced (docs/adr/0003): slowapi's own reading of `.env` and the environment is off, and so is its own check, which asks
a storage while the event loop waits; limits are shared by name rather than by path, and the headers are ours.
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
from starlette.responses import JSONResponse, Response

from api.http.problems import respond_with_problem
from api.rate_limits.windows import LimitResult, LocalWindows, Windows
from auth.networks import client_network
from monitoring.metrics import Metrics

TOKEN_LIMIT = "token"  # noqa: S105  (the name of a limit)
PREDICT_LIMIT = "predict"
KEY_LIMIT = "key"

KeyOf = Callable[[Request], str]
Check = Callable[[Request], Awaitable[None]]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class CallerLimits(Limiter):
    """Limits per caller, counted in `windows`."""

    def __init__(self, windows: Windows) -> None:
        super().__init__(key_func=caller_address, storage_uri="memory://", auto_check=False)
        self._windows = windows

    def get_app_config(self, key: str, default_value: Any = None) -> Any:
        """Settings have one reader; slowapi would read RATELIMIT_* from the environment on its own."""
        return default_value

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open until the context ends."""
        await self._windows.open()
        try:
            yield
        finally:
            await self._windows.close()

    @property
    def shared(self) -> bool:
        """Whether they are counted outside this process."""
        return not isinstance(self._windows, LocalWindows)

    async def word(self) -> str | None:
        """How it is with what they are counted in, None where all is well."""
        await self._windows.open()
        return "reduced" if self._windows.reduced else None

    def per_principal(self, rate: str, name: str) -> Decorator:
        """At most `rate` requests of one principal over all the routes that share `name`; and an API key's own rate."""
        return self._shared(rate, name, caller_subject, self._own_rate)

    def per_address(self, rate: str, name: str) -> Decorator:
        """At most `rate` requests from one client address (of IPv6, one network) over the routes that share `name`."""
        return self._shared(rate, name, caller_network)

    def _shared(self, rate: str, name: str, key_of: KeyOf, first: Check | None = None) -> Decorator:
        register: Decorator = self.shared_limit(rate, scope=name, key_func=key_of)
        item = parse(rate)

        def decorate(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(endpoint)
            async def limited(**arguments: Any) -> Any:
                if first is not None:
                    await first(arguments["request"])
                await self._hit(arguments["request"], item, name, key_of)
                return await endpoint(**arguments)

            return register(limited)

        return decorate

    async def _own_rate(self, request: Request) -> None:
        """Hold an API key to the rate it was given. Raises RateLimitExceeded."""
        rate = request.state.principal.rate
        if rate is not None:
            await self._hit(request, parse(rate), KEY_LIMIT, _key_id)

    async def _hit(self, request: Request, item: RateLimitItem, name: str, key_of: KeyOf) -> None:
        """Raises RateLimitExceeded."""
        caller = key_of(request)
        limit_result = await self._windows.hit(item, name, caller)
        limit_results = request.scope["state"].setdefault("limit_results", [])
        limit_results.insert(0, (name, limit_result))
        request.state.view_rate_limit = limit_result.item, [caller, name]  # where slowapi keeps it
        if not limit_result.allowed:
            raise RateLimitExceeded(Limit(limit_result.item, key_of, name, False, None, None, None, 1, False))

    @staticmethod
    def headers(state: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), `Retry-After` once refused."""
        limit_results: list[tuple[str, LimitResult]] = state.get("limit_results", [])
        if not limit_results:
            return
        yield "RateLimit-Policy", ", ".join(_policy(*one) for one in limit_results)
        yield "RateLimit", ", ".join(f'"{name}";r={one.remaining};t={_reset_s(one)}' for name, one in limit_results)
        if state.get("problem_code") == "rate_limited":
            yield "Retry-After", str(_reset_s(limit_results[0][1]))


def _policy(name: str, limit_result: LimitResult) -> str:
    return f'"{name}";q={limit_result.item.amount};w={limit_result.item.get_expiry()}'


def _reset_s(limit_result: LimitResult) -> int:
    return max(1, math.ceil(limit_result.reset_at - time.monotonic()))


def limit_handler(metrics: Metrics) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Count a refused request under the name of its limit, and answer 429."""

    async def refused(request: Request, _: Exception) -> Response:
        name = request.state.limit_results[0][0]
        metrics.rate_limited.labels(name).inc()
        detail = "Too many requests. Wait as many seconds as Retry-After says."
        if name == TOKEN_LIMIT:
            request.state.problem_code = "rate_limited"
            body = {"error": "temporarily_unavailable", "error_description": detail}
            return JSONResponse(body, HTTPStatus.TOO_MANY_REQUESTS)
        return respond_with_problem(request, HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail)

    return refused


def _key_id(request: Request) -> str:
    key_id: str = request.state.principal.key_id
    return key_id


def caller_subject(request: Request) -> str:
    """The authenticated principal's subject."""
    subject: str = request.state.principal.subject
    return subject


def caller_address(request: Request) -> str:
    """The peer's address; a proxy's word for it counts only where the server was told to trust that proxy."""
    return request.client.host if request.client else "unknown"


def caller_network(request: Request) -> str:
    """Whom the peer's address stands for: who has one IPv6 address has its whole network."""
    return client_network(caller_address(request))
