"""The OpenAPI document: what FastAPI derives from the routes, and the error responses of the layers around them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.http.errors import find_status
from api.http.oauth.forms import OAUTH_ERRORS
from api.http.openapi.texts import ERROR_EXAMPLES, INTRODUCTION, NOT_READY, SCOPES, SUMMARIES, TAGS
from api.http.problems import build_problem

# The error statuses of all requests (from the HTTP parser and the host check), and those that a request with a body or
# with a credential can get in addition.
_ALWAYS = (400, 421, 431)
_WITH_BODY = (408, 413, 415)
_WITH_CREDENTIAL = (401, 403, 503)
_PROBLEM = "#/components/schemas/Problem"
# FastAPI's own error schemas, which no response uses: install_handlers replaces its handlers.
_REPLACED = ("HTTPValidationError", "ValidationError")

_REQUEST_ID = "3d1011a644734d81be1f81f2b16245bc"
_API_KEY = {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "an API key: atl_…"}

Operation = dict[str, Any]


def install_openapi(app: FastAPI) -> None:
    """Make `app` serve this module's document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _build_document(app: FastAPI) -> dict[str, Any]:
    tags = [{"name": name, "description": text} for name, text in TAGS.items()]
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=INTRODUCTION,
        routes=app.routes,
        tags=tags,
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["summary"] = SUMMARIES[f"{method.upper()} {path}"]
            _complete_operation(operation)
    schemes = document["components"]["securitySchemes"]
    schemes["OAuth2PasswordBearer"]["flows"]["password"]["scopes"] = dict(SCOPES)
    schemes["APIKeyHeader"] = _API_KEY
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
    for tag in operation["tags"]:
        _add_example(tag, responses)
    operation["responses"] = dict(sorted(responses.items()))
    for parameter in operation.get("parameters", ()):
        _forbid_null(parameter["schema"])


def _add_example(tag: str, responses: dict[str, Any]) -> None:
    """Add the example error of the route's group to the response that has the status of the example."""
    status, example = _build_example(tag)
    for content in responses.get(str(status), {}).get("content", {}).values():
        content["example"] = example


def _build_example(tag: str) -> tuple[int, dict[str, Any]]:
    if tag == "health":
        return HTTPStatus.SERVICE_UNAVAILABLE, NOT_READY
    error = ERROR_EXAMPLES[tag]
    if tag == "auth":
        return HTTPStatus.BAD_REQUEST, {"error": OAUTH_ERRORS[type(error)], "error_description": str(error)}
    status, code = find_status(error), error.code  # type: ignore[attr-defined]  # every mapped class has one
    assert status is not None  # noqa: S101  (a test ensures that every class has a status)
    return status, {**build_problem(status, code, str(error)), "request_id": _REQUEST_ID}


def _has_own_schema(response: dict[str, Any]) -> bool:
    """Return whether an error has a schema other than Problem: OAuth's, or that of readiness."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema) and schema.get("$ref", "").rpartition("/")[2] not in (_PROBLEM.rpartition("/")[2], *_REPLACED)


def _forbid_null(schema: dict[str, Any]) -> None:
    """Remove null from a parameter's types: a query string or header can omit a value, but not send null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema.update(kinds[0])
