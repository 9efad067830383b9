"""Errors of requests that are refused before the application sees them, and the responses to them."""

from __future__ import annotations

import uuid

import structlog
from prometheus_client import Counter

from api.errors import ApiError, HeadTooLarge
from api.http.errors import build_error_headers, find_status
from api.http.problems import problem
from api.http.security_headers import set_security_headers
from model.errors import MemoryFull

MAX_HEAD_BYTES = 32 * 1024  # limits the request line with the headers, the head of a chunk, and trailers
MAX_HEADERS = 100
TOO_MANY_CONNECTIONS = "too_many_connections"

Refusal = ApiError | MemoryFull

log = structlog.get_logger("atalaya.access")


def report_refusal(counter: Counter, code: str) -> None:
    """Count and log a connection that is closed because of the error `code`."""
    counter.labels(code).inc()
    log.info("connection_refused", code=code)


def head_too_large() -> HeadTooLarge:
    """Create the error for a request that exceeds one of the limits above."""
    return HeadTooLarge(f"A request may have at most {MAX_HEADERS} headers, of {MAX_HEAD_BYTES} bytes in total.")


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
