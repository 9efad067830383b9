"""The OpenAPI document: what FastAPI knows of each route, and what the front door may answer in its place."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.routing import Match

# From the parser of HTTP and the list of host names; with a body; with a credential.
_ALWAYS = (400, 421, 431)
_WITH_BODY = (408, 413)
_WITH_CREDENTIAL = (401, 403, 503)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_PROBLEM = "#/components/schemas/Problem"
# FastAPI's own shape of an error, which install_handlers replaces.
_REPLACED = ("HTTPValidationError", "ValidationError")

_API_KEY = {"type": "apiKey", "in": "header", "name": "X-API-Key"}

Operation = dict[str, Any]


def describe(app: FastAPI) -> None:
    """Let `app` tell of itself as here."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def allowed_methods(request: Request) -> str:
    """The value of `Allow`: all that the path can be asked with, where the router names those of one route."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    return ", ".join(name for name, scope in scopes.items() if any(r.matches(scope)[0] is Match.FULL for r in routes))


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    for path in document["paths"].values():
        for operation in path.values():
            _complete(operation)
    document["components"]["securitySchemes"]["APIKeyHeader"] = _API_KEY
    for name in _REPLACED:
        document["components"]["schemas"].pop(name, None)
    return document


def _complete(operation: Operation) -> None:
    if "security" in operation:  # whoever may send a token may send a key
        operation["security"].append({"APIKeyHeader": []})
    possible = [*_ALWAYS]
    possible += _WITH_BODY if "requestBody" in operation else ()
    possible += _WITH_CREDENTIAL if "security" in operation else ()
    responses = operation["responses"]
    for status in map(str, possible):
        responses.setdefault(status, {"description": HTTPStatus(int(status)).phrase})
    for status, response in responses.items():
        if int(status) >= HTTPStatus.BAD_REQUEST and not _has_own_form(response):
            response["content"] = {"application/problem+json": {"schema": {"$ref": _PROBLEM}}}
    operation["responses"] = dict(sorted(responses.items()))
    for parameter in operation.get("parameters", ()):
        _forbid_null(parameter["schema"])


def _has_own_form(response: dict[str, Any]) -> bool:
    """Whether a refusal is told in another form: OAuth's, or the readiness of dependencies."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema) and schema.get("$ref", "").rpartition("/")[2] not in (_PROBLEM.rpartition("/")[2], *_REPLACED)


def _forbid_null(schema: dict[str, Any]) -> None:
    """A parameter is there or absent: an address and a header have no null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema.update(kinds[0])
