"""Requests that end before their response: the client disconnects, or the server shuts down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

import pytest
from starlette.testclient import TestClient
from starlette.types import Message
from structlog.testing import capture_logs

Receive = Callable[[], Awaitable[Message]]


def post(client: TestClient, path: str, receive: Receive, bearer: dict[str, str], content_type: str) -> list[Message]:
    """Post a body that `receive` returns, and return the messages of the response."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = {"host": "testserver", "content-type": content_type, "content-length": "1000", **bearer}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 1234),
        "state": dict(client.app_state),
    }
    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/v1/keys", "application/json"), ("/auth/token", "application/x-www-form-urlencoded")],
)
def test_a_client_that_disconnects_during_its_body_is_recorded(
    client: TestClient, bearer: dict[str, str], path: str, content_type: str
) -> None:
    """A client that disconnects before it has sent its whole body is recorded with status 499 on every route."""
    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": b'{"name":', "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(messages)

    with capture_logs() as logs:
        assert post(client, path, receive, bearer, content_type) == []
    (line,) = [line for line in logs if line["event"] == "request"]
    assert (line["http.response.status_code"], line["code"]) == (499, "client_left")
    assert line["log_level"] == "info"


def test_a_request_that_the_server_cancels_gets_a_problem_document(client: TestClient, bearer: dict[str, str]) -> None:
    """A request that the server cancels gets a 503 that says when to repeat it, as log and metrics say too."""

    async def receive() -> Message:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        raise AssertionError

    with capture_logs() as logs:
        start, body = post(client, "/v1/keys", receive, bearer, "application/json")
    headers = dict(start["headers"])
    assert (start["status"], json.loads(body["body"])["code"]) == (503, "shutting_down")
    assert (headers[b"retry-after"], headers[b"connection"]) == (b"1", b"close")
    (line,) = [line for line in logs if line["event"] == "request"]
    assert (line["http.response.status_code"], line["code"], line["log_level"]) == (503, "shutting_down", "info")
    metrics = client.get("/metrics", headers=bearer).text
    assert 'http_response_status_code="0"' not in metrics
