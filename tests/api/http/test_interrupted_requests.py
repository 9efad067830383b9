"""Requests that end before their response: the client disconnects."""

from __future__ import annotations

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
