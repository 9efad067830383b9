"""The OpenAPI document: what FastAPI derives from the routes, and the error responses of the layers around them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.routing import Match

# Statuses of any request (HTTP parser, host names), of one with a body, and of one with a credential.
_ALWAYS = (400, 421, 431)
_WITH_BODY = (408, 413)
_WITH_CREDENTIAL = (401, 403, 503)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PROBLEM = "#/components/schemas/Problem"
# FastAPI's own error schemas, which no response uses: install_handlers replaces its handlers.
_REPLACED = ("HTTPValidationError", "ValidationError")

_API_KEY = {"type": "apiKey", "in": "header", "name": "X-API-Key"}

Operation = dict[str, Any]


def install_openapi(app: FastAPI) -> None:
    """Make `app` serve this module's document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def allowed_methods(request: Request) -> str:
    """Return the value of `Allow` over all routes of the path: the router would name the methods of one."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    allowed = [name for name, scope in scopes.items() if any(r.matches(scope)[0] is Match.FULL for r in routes)]
    if "GET" in allowed:
        allowed.insert(allowed.index("GET") + 1, "HEAD")
    return ", ".join(allowed)


def _build_document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    for path in document["paths"].values():
        for operation in path.values():
            _complete_operation(operation)
    document["components"]["securitySchemes"]["APIKeyHeader"] = _API_KEY
    for name in _REPLACED:
        document["components"]["schemas"].pop(name, None)
    return document


def _complete_operation(operation: Operation) -> None:
    if "security" in operation:  # a route that accepts a token accepts an API key
        operation["security"].append({"APIKeyHeader": []})
    possible = [*_ALWAYS]
    possible += _WITH_BODY if "requestBody" in operation else ()
    possible += _WITH_CREDENTIAL if "security" in operation else ()
    responses = operation["responses"]
    for status in map(str, possible):
        responses.setdefault(status, {"description": HTTPStatus(int(status)).phrase})
    for status, response in responses.items():
        if int(status) >= HTTPStatus.BAD_REQUEST and not _has_own_schema(response):
            response["content"] = {"application/problem+json": {"schema": {"$ref": _PROBLEM}}}
    operation["responses"] = dict(sorted(responses.items()))
    for parameter in operation.get("parameters", ()):
        _forbid_null(parameter["schema"])


def _has_own_schema(response: dict[str, Any]) -> bool:
    """Whether an error has another schema than Problem: OAuth's, or readiness."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema) and schema.get("$ref", "").rpartition("/")[2] not in (_PROBLEM.rpartition("/")[2], *_REPLACED)


def _forbid_null(schema: dict[str, Any]) -> None:
    """Remove null from a parameter's types: a query string or header can omit a value, but not send null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema.update(kinds[0])
