"""Requests to an MLflow server: the credentials that are sent, and the errors when a request fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from model.registry.errors import RegistryAccessDenied, RegistryUnavailable
from model.registry.mlflow.server import Credentials, MlflowServer
from tests.model.registry.mlflow.servers import MODEL, USER, RunningMlflow
from tests.support.ports import free_port
from tests.support.servers.running import running


@contextmanager
def receiver(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str | None]]]:
    """Run a server with the same response to every request; yields its URL and the credentials that it receives."""
    received: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(self.headers["Authorization"])
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", received


def read_model(url: str, credentials: Credentials = Credentials()) -> None:  # noqa: B008  (immutable)
    with closing(MlflowServer(url, credentials)) as server:
        server.read_model(MODEL)


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        (Credentials("ana", "pass"), "Basic YW5hOnBhc3M="),
        (Credentials(token="t0ken"), "Bearer t0ken"),
        (Credentials("ana", "pass", "t0ken"), "Basic YW5hOnBhc3M="),
        (Credentials(), None),
    ],
)
def test_credentials_are_sent_as_mlflow_s_clients_send_them(credentials: Credentials, header: str | None) -> None:
    """A user name and password take precedence over a token, and without either nothing is sent."""
    with receiver(200, b"{}") as (url, received), closing(MlflowServer(url, credentials)) as server:
        server.get("registered-models/get", name=MODEL)
    assert received == [header]


def test_redirect_takes_the_credentials_nowhere() -> None:
    """A redirect is an error and is not followed, so the credentials reach no other server."""
    with (
        receiver(200, b"{}") as (target, received),
        receiver(302, b"", Location=f"{target}/") as (url, _),
        pytest.raises(RegistryUnavailable, match="responds with 302"),
    ):
        read_model(url, Credentials(token="t0ken"))
    assert received == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"registered_model": {"aliases": [{}]}}'])
def test_other_servers_are_recognised(body: bytes) -> None:
    """A response that MLflow would not send raises an error that says so."""
    with receiver(200, body) as (url, _), pytest.raises(RegistryUnavailable, match="not respond like an MLflow server"):
        read_model(url)


def test_server_s_own_message_is_shown_without_control_characters() -> None:
    """The error contains the server's message, shortened to one printable line."""
    with (
        receiver(500, b"out of\x1b[2J\n disk " + b"x" * 10_000) as (url, _),
        pytest.raises(RegistryUnavailable, match=r"responds with 500: out of\[2J disk x") as caught,
    ):
        read_model(url)
    assert len(str(caught.value)) < 400


def test_unreachable_server_is_reported() -> None:
    """A server that cannot be reached is reported with its address."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RegistryUnavailable, match=f"{url} cannot be reached"):
        read_model(url)


@pytest.mark.parametrize("host", ["a..b", "\N{LATIN SMALL LETTER E WITH ACUTE}..b"])
def test_a_host_that_is_no_name_is_reported(host: str) -> None:
    """A host that IDNA cannot encode is reported with the address, like a server that cannot be reached."""
    with pytest.raises(RegistryUnavailable, match=rf"http://{host} cannot be reached: "):
        read_model(f"http://{host}")


@pytest.mark.parametrize("credentials", [Credentials(), Credentials(USER, "wrong"), Credentials(token="wrong")])
def test_rejected_credentials_name_their_settings(mlflow: RunningMlflow, credentials: Credentials) -> None:
    """If a real MLflow server rejects the credentials, the error names their settings, but not their values."""
    with pytest.raises(RegistryAccessDenied, match="MLFLOW_TRACKING_USERNAME") as caught:
        read_model(mlflow.url, credentials)
    assert "wrong" not in str(caught.value)
