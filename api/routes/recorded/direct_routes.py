"""A fast path to the prediction routes, for requests without parameters."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api.routes.recorded.recorded_route import Handle, RecordedRoute


class DirectRoutes:
    """Calls the endpoints of the RecordedRoutes in `routes` without the layers of FastAPI around them.

    Resolving a route, its dependencies and its parameters takes FastAPI longer than everything else that the gateway
    does on the event loop for a prediction (docs/adr/0032). A request without parameters leaves nothing to resolve.
    All other requests go to `app`, including those for other routes.
    """

    def __init__(self, app: ASGIApp, *, routes: list[BaseRoute]) -> None:
        self._app = app
        self._routes: dict[tuple[str, str], tuple[RecordedRoute, Handle]] = {
            (method, route.path): (route, route.get_direct_handler())
            for route in routes
            if isinstance(route, RecordedRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        direct = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if direct is None or direct[0].has_parameters(scope):
            await self._app(scope, receive, send)
            return
        scope["route"], handle = direct
        request = Request(scope, receive, send)
        try:
            response = await handle(request)
        except Exception as error:
            handlers = scope["app"].exception_handlers
            handle_error = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
            if handle_error is None:
                raise
            response = await handle_error(request, error)
        await response(scope, receive, send)
