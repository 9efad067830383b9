"""Problem documents (RFC 9457), the form of every error response outside of OAuth, and their OpenAPI description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.schemas.problems import Problem

_MEDIA_TYPE = "application/problem+json"
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
    request: Request,
    status: HTTPStatus,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Make a problem document for a request, and put its code on the request's log line."""
    request.state.problem_code = code
    members = build_protocol_members(request.scope["path"], detail)
    return problem(status, code, detail, request.state.request_id, headers, **members, **more)


def build_protocol_members(path: str, detail: str) -> dict[str, str]:
    """Return the member `error`, which clients of the Open Inference Protocol expect, if the path is the protocol's."""
    return {"error": detail} if path == "/v2" or path.startswith("/v2/") else {}


def document_problems(*statuses: int) -> Responses:
    """Make the `responses` of a route that rejects requests with these statuses, each as a problem document."""
    return {status: {"model": Problem, "content": {_MEDIA_TYPE: {}}} for status in statuses}
