"""Responses to requests that are refused before the application sees them."""

from __future__ import annotations

import uuid

from api.errors import ApiError
from api.http.errors import build_error_headers, find_status
from api.http.problems import problem
from api.http.security_headers import set_security_headers
from model.errors import MemoryFull

Refusal = ApiError | MemoryFull


def render_refusal(error: Refusal) -> bytes:
    """Render a whole HTTP response with a problem document, after which the connection is closed."""
    request_id = uuid.uuid4().hex
    status = find_status(error)
    assert status is not None  # noqa: S101  (a test ensures that every class has a status)
    response = problem(
        status, error.code, str(error), request_id, {"Connection": "close", **build_error_headers(error)}
    )
    set_security_headers(response.raw_headers, request_id)
    head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, status.phrase.encode(), head) + bytes(response.body)
