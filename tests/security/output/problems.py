"""The assertions that every problem document of the gateway must pass."""

from __future__ import annotations

import httpx

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}
_INTERNALS = ("Traceback", 'File "', "site-packages", "sqlite", "PIL.", "Exception")


def check_problem(response: httpx.Response, status: int, code: str) -> None:
    """Assert that this is a problem document with security headers that names no file, class or module."""
    document = response.json()
    assert (response.status_code, document["code"], document["status"]) == (status, code, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert set(document) >= MEMBERS
    assert document["type"] == f"urn:atalaya:problem:{code}"
    assert response.headers["x-request-id"] == document["request_id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert response.headers["cache-control"] == "no-store"
    assert "server" not in response.headers
    assert not [text for text in _INTERNALS if text in response.text]
