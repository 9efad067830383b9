"""Problem documents (RFC 9457), the shape of every error response outside of OAuth, and their place in OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.schemas.problems import Problem

Responses = dict[int | str, dict[str, Any]]


def problem(
    status: HTTPStatus, code: str, detail: str, request_id: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Make a response with a problem document; `more` are further members."""
    body = {**build_problem(status, code, detail, request_id), **more}
    return JSONResponse(body, status.value, headers, media_type="application/problem+json")


def build_problem(status: HTTPStatus, code: str, detail: str, request_id: str) -> dict[str, Any]:
    """Make a problem document; `type` is a URN of the stable code."""
    return {
        "type": f"urn:atalaya:problem:{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": request_id,
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
    return problem(status, code, detail, request.state.request_id, headers, **more)


def document_problems(*statuses: int) -> Responses:
    """Make the `responses` of a route that rejects requests with these statuses, each as a problem document."""
    return {status: {"model": Problem, "content": {"application/problem+json": {}}} for status in statuses}
