"""Error responses: problem documents (RFC 9457), or OAuth's form at its endpoints; and their OpenAPI description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from api.schemas.problems import Problem

OAUTH_PATHS = ("/auth/token", "/auth/revoke", "/auth/introspect")
_MEDIA_TYPE = "application/problem+json"
# `error` in the responses of OAuth endpoints to errors that the endpoint itself does not handle, such as a wrong method
# (RFC 6749, sections 4.1.2.1 and 5.2). It is "invalid_request" for other statuses.
_OAUTH_ERRORS = {
    HTTPStatus.TOO_MANY_REQUESTS: "temporarily_unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE: "temporarily_unavailable",
    HTTPStatus.INTERNAL_SERVER_ERROR: "server_error",
}
# In characters. A longer detail may contain text from the client, which must not stay in the cache.
_MAX_KEPT_DETAIL = 500
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Responses = dict[int | str, dict[str, Any]]


def problem(
    status: HTTPStatus, code: str, detail: str, request_id: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Make a response with a problem document; `more` are further members."""
    render = _render_often if len(detail) <= _MAX_KEPT_DETAIL else _render_fixed_members
    fixed = render(status, code, detail)
    own = _encode({"request_id": request_id, **more})
    return Response(f"{fixed[:-1]},{own[1:]}", status.value, headers, _MEDIA_TYPE)


def _render_fixed_members(status: HTTPStatus, code: str, detail: str) -> str:
    """Return the part of a problem document that all requests with the same problem share, as a JSON object."""
    return _encode(build_problem(status, code, detail))


_render_often = lru_cache(maxsize=256)(_render_fixed_members)


def build_problem(status: HTTPStatus, code: str, detail: str) -> dict[str, Any]:
    """Make a problem document without the id of the request; `type` is a URN of the stable code."""
    return {
        "type": f"urn:atalaya:problem:{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
    }


def respond_with_problem(
    scope: Scope, status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Make the response to an error of a request, and put its code on the request's log line.

    It is a problem document, with the member `error` that clients of the Open Inference Protocol expect under /v2. The
    OAuth endpoints have the form of RFC 6749, section 5.2, instead.
    """
    path, state = scope["path"], scope["state"]
    state["problem_code"] = code
    if path in OAUTH_PATHS:
        error = _OAUTH_ERRORS.get(status, "invalid_request")
        return JSONResponse({"error": error, "error_description": detail}, status, headers)
    members = {"error": detail} if path == "/v2" or path.startswith("/v2/") else {}
    return problem(status, code, detail, state["request_id"], headers, **members, **more)


def document_problems(*statuses: int) -> Responses:
    """Make the `responses` of a route that rejects requests with these statuses, each as a problem document."""
    return {status: {"model": Problem, "content": {_MEDIA_TYPE: {}}} for status in statuses}
