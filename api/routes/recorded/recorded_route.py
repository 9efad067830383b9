"""The route class of predictions: the ledger also records requests of authenticated callers that get no prediction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.deps import Caller, get_pipeline, get_services
from api.http.uploads import check_declared_length
from api.prediction.errors import ClientDisconnected
from api.prediction.request import RequestOrigin
from api.rate_limits.callers import caller_address
from auth.principal import Principal, Scope

Handle = Callable[[Request], Coroutine[Any, Any, Response]]
B = TypeVar("B")


async def _admit(request: Request) -> None:
    """Raises Overloaded, WorkerStuck, RateLimitExceeded."""
    get_pipeline(request).check_capacity(request.scope["state"]["principal"])
    await get_services(request).runtime.limits.check_predictions(request)


authorize_prediction = Caller(Scope.PREDICT, admit=_admit)


async def read_authenticated(read: Callable[[Request], Awaitable[B]], request: Request) -> B:
    """Read the body, and authenticate the caller again: the credential may have been revoked while it arrived.

    Raises what `read` and `authorize_prediction` raise.
    """
    body = await read(request)
    await authorize_prediction(request)
    return body


class _RefusedByPipeline(Exception):
    """Carries an error, which the pipeline has already recorded, through FastAPI to the route class."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def recorded_by_pipeline() -> Iterator[None]:
    """Enclose the use of the pipeline in an endpoint of a RecordedRoute, so that no rejection is recorded twice."""
    try:
        yield
    except ClientDisconnected:
        raise _RefusedByPipeline(ClientDisconnect()) from None
    except Exception as error:
        raise _RefusedByPipeline(error) from None


class RecordedRoute(APIRoute):
    """Records requests rejected before the pipeline runs, such as for a missing scope, a rate limit or a bad parameter.

    The queue's capacity, the rate limits, the caller's scope and the declared length are checked before FastAPI
    resolves anything, so that rejecting a request costs little. Every other rejection counts towards the rate limits.
    """

    def get_route_handler(self) -> Handle:
        return _record_refusals(super().get_route_handler())

    def get_direct_handler(self) -> Handle:
        """Return a handler that calls the endpoint with the principal, and with the defaults of its parameters.

        Only for requests without parameters (see `has_parameters`), which leave FastAPI nothing to resolve or validate.
        """

        async def call_endpoint(request: Request) -> Response:
            response: Response = await self.endpoint(request=request, principal=request.scope["state"]["principal"])
            return response

        return _record_refusals(call_endpoint)

    def has_parameters(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the request has a query string or a header that is a parameter of the endpoint."""
        return bool(scope["query_string"]) or any(name in self._header_parameters for name, _ in scope["headers"])

    @cached_property
    def _header_parameters(self) -> frozenset[bytes]:
        """The names of the header parameters, in lower case as in an ASGI scope."""
        return frozenset(field.alias.lower().encode() for field in self.dependant.header_params)


def _record_refusals(handle: Handle) -> Handle:
    """Wrap `handle` to check the request first, and to record each rejection that the pipeline has not recorded."""

    async def handle_recorded(request: Request) -> Response:
        pipeline = get_pipeline(request)
        try:
            await authorize_prediction(request)
            check_declared_length(request)
            return await handle(request)
        except _RefusedByPipeline as refused:
            raise refused.error from refused.error.__cause__
        except Exception as error:
            principal = request.scope["state"].get("principal")
            if principal is not None:
                pipeline.record_refusal(describe_origin(request, principal), error)
            raise

    return handle_recorded


def describe_origin(request: Request, principal: Principal) -> RequestOrigin:
    return RequestOrigin(
        principal, caller_address(request), request.scope["state"]["request_id"], request.scope["route"].path
    )
