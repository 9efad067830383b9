"""The application, built from its settings. Importing this module builds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from slowapi.errors import RateLimitExceeded
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp

from api.deps import get_services
from api.http.addresses.proxies import AllowedHosts, TrustedProxies
from api.http.body_limits import MAX_DOCUMENT_BYTES, BodyLimit
from api.http.cross_origin import CrossOrigin, cross_origin_headers
from api.http.draining import Draining
from api.http.errors import install_handlers
from api.http.head_requests import HeadAsGet
from api.http.middleware import Observe
from api.http.openapi.document import install_openapi
from api.http.problems import OAUTH_PATHS, document_problems
from api.http.uploads import is_image_path
from api.lifespan import make_lifespan
from api.prediction.admission import MAX_BODY_BYTES
from api.production import check_secrets
from api.rate_limits.fallback import make_windows
from api.rate_limits.limiter import CallerLimits, limit_handler
from api.routes import audit, health, history, keys, predictions, usage, users
from api.routes.auth import auth_router
from api.routes.me import me_router
from api.routes.metrics import metrics_router
from api.routes.models import drift, labels, quality
from api.routes.models import registry as models
from api.routes.oauth import oauth_router
from api.routes.pages import documentation, home
from api.routes.recorded.direct_routes import DirectRoutes
from api.routes.v2 import health as v2_health
from api.routes.v2 import infer, metadata
from api.server.tls import ServerTls
from api.services.background.activity import Activity, make_activity
from api.services.measuring.create import create_metrics
from api.services.opening import open_model as open_configured_model
from api.services.runtime import open_error_reporter, open_tracer
from api.settings import Settings
from model.backends.base import Backend
from monitoring.reporting.replaceable import ReplaceableReporter
from monitoring.reporting.sentry import ErrorReporter
from monitoring.reporting.telemetry import Telemetry

# Routers that need no settings, and whose requests count towards LIMITS__REQUESTS.
_LIMITED = (
    usage.router,
    labels.router,
    quality.router,
    drift.router,
    audit.router,
    users.router,
    keys.router,
    models.router,
    metadata.router,
)


class Gateway(FastAPI):
    """FastAPI without its outermost layers, which would run for each request without doing anything here.

    Observe turns every error into a response, FastAPI's telemetry is off, and BodyLimit limits all bodies.
    """

    def build_middleware_stack(self) -> ASGIApp:
        stack: Any = super().build_middleware_stack()
        while not isinstance(stack, TrustedProxies):
            stack = stack.app
        return stack


def create_app(
    settings: Settings,
    *,
    registry: CollectorRegistry | None = None,
    shown: CollectorRegistry | None = None,
    reporter: ErrorReporter | None = None,
    draining: Draining | None = None,
    open_model: Callable[[], Backend] | None = None,
    tls: ServerTls | None = None,
) -> FastAPI:
    """Build the application. Raises SettingsError, WeakSigningKey.

    The metrics are created on `registry`; /metrics shows `shown`, or else `registry`. Unexpected errors go to
    `reporter`. Once `draining` has begun, every response closes its connection. `open_model` opens the back end, by
    default the one in MODEL__URL. The certificates of `tls` are reloaded when their files change.
    """
    check_secrets(settings)
    registry = registry if registry is not None else CollectorRegistry()
    draining = draining or Draining()
    activity = make_activity(settings)
    open_model = open_model or partial(open_configured_model, settings)
    metrics = create_metrics(settings, registry, shown)
    telemetry = Telemetry(
        metrics,
        ReplaceableReporter(reporter or open_error_reporter(settings, metrics.error_reports_dropped.inc)),
        open_tracer(settings, metrics),
    )
    limits = CallerLimits(make_windows(settings, metrics, activity), settings.limits.requests, settings.limits.predict)
    app = Gateway(
        title="Atalaya",
        summary="A secured prediction gateway, which classifies the land use in aerial images.",
        version=version("atalaya"),
        lifespan=make_lifespan(settings, telemetry, draining, activity, limits, open_model, tls),
        openapi_url=None,  # the documentation's router has the route, so that metrics name it
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the gateway has its own telemetry
        middleware=[
            *_middleware(settings, telemetry, draining, activity, limits),
            Middleware(DirectRoutes, routes=predictions.router.routes),
        ],
    )
    install_openapi(app)
    app.state.limiter = limits
    app.state.metrics = metrics
    install_handlers(app)
    app.add_exception_handler(RateLimitExceeded, limit_handler(metrics))
    # Starlette tries the routes in this order: the most frequent ones come first.
    app.include_router(predictions.router)  # add no dependencies here: DirectRoutes would not call them
    logins = (auth_router(limits, settings.limits.token), oauth_router(limits, settings.limits.requests))
    for router in (infer.router, health.router, v2_health.router, *logins):
        app.include_router(router)
    for router in (history.router, me_router(limits, settings.limits.password), *_LIMITED):
        app.include_router(router, responses=document_problems(429))  # their requests count towards LIMITS__REQUESTS
    app.include_router(metrics_router(shown or registry), responses=document_problems(429))
    app.include_router(home.router)
    if settings.docs_enabled:
        app.include_router(documentation.router)
    return app


def _middleware(
    settings: Settings, telemetry: Telemetry, draining: Draining, activity: Activity, limits: CallerLimits
) -> list[Middleware]:
    """Return the middleware around the routes, outermost first."""
    origins = settings.cors_origins
    return [
        Middleware(
            TrustedProxies,
            networks=settings.limits.proxy_networks(),
            certificate_networks=settings.limits.certificate_proxies(),
        ),
        Middleware(
            Observe,
            telemetry=telemetry,
            draining=draining,
            activity=activity,
            extra_headers=partial(_extra_headers, limits) if origins else limits.headers,
            https=settings.in_production,
        ),
        *([Middleware(CrossOrigin, origins=origins)] if origins else []),
        Middleware(AllowedHosts, names=settings.host_names),
        Middleware(HeadAsGet),
        Middleware(
            BodyLimit,
            max_bytes=MAX_BODY_BYTES,
            max_document_bytes=MAX_DOCUMENT_BYTES,
            is_streamed=lambda path: is_image_path(path) or path in OAUTH_PATHS,
            is_reserving=is_image_path,
            get_memory=lambda scope: get_services(Request(scope)).serving.memory,
        ),
    ]


def _extra_headers(limits: CallerLimits, state: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from limits.headers(state)
    yield from cross_origin_headers(state)
