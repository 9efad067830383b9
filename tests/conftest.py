"""The servers that tests of several rooms share: a real PostgreSQL, and a real gateway as its own process."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from auth.tokens.jws import generate_signing_key, load_signing_key
from monitoring.chains.signing import new_private_key
from tests.support import postgres, redis


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a throw-away PostgreSQL server, without a database's name."""
    try:
        with postgres.running() as server:
            yield server.url
    except LookupError as error:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(str(error))


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{postgres_server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[redis.Redis]:
    """A Redis server of the test's own, empty."""
    try:
        with redis.running(tmp_path) as server:
            yield server
    except LookupError as error:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/users.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


ROOT = Path(__file__).parents[1]
ATALAYA = Path(sys.executable).with_name("atalaya")
PASSWORD = "correct horse battery"


@dataclass
class Gateway:
    """A running gateway with the users `ana` (client) and `olga` (operator)."""

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    clients: list[httpx.Client] = field(default_factory=list)

    @staticmethod
    def free_port() -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return str(probe.getsockname()[1])

    @property
    def base_url(self) -> str:
        scheme = "https" if "TLS_CERTIFICATE" in self.environment else "http"
        return f"{scheme}://127.0.0.1:{self.environment['PORT']}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['METRICS_PORT']}/metrics"

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one `atalaya` command beside the gateway."""
        return subprocess.run(
            [ATALAYA, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.environment,
            timeout=60,
        )

    def start(self) -> None:
        log = (self.folder / "gateway.log").open("wb")
        with log:
            self.process = subprocess.Popen(
                [ATALAYA, "serve"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                # Whose certificate it is does not matter yet.
                if httpx.get(f"{self.base_url}/readyz", verify=False).is_success:  # noqa: S501
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        pytest.fail(f"not ready within 30 s: {self.log()}")

    def stop(self) -> int:
        """Ask it to stop; returns the exit status."""
        assert self.process is not None
        for client in self.clients:
            client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def token(self, user: str = "ana") -> str:
        form = {"grant_type": "password", "username": user, "password": PASSWORD}
        answer = httpx.post(f"{self.base_url}/auth/token", data=form)
        assert answer.is_success, answer.text
        token: str = answer.json()["access_token"]
        return token

    def client(self, user: str = "ana") -> httpx.Client:
        """A client that sends the user's token; closed with the gateway."""
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        client = httpx.Client(base_url=self.base_url, headers=headers, timeout=30)
        self.clients.append(client)
        return client

    def traffic(self) -> None:
        """Send a few requests of every kind: answered, refused, unauthenticated, unknown."""
        sample = (ROOT / "samples" / "yellowstone_forest.jpg").read_bytes()
        form = {"grant_type": "password", "username": "ana", "password": "wrong horse battery"}
        with httpx.Client(base_url=self.base_url, headers={"Authorization": f"Bearer {self.token()}"}) as client:
            for route in ("/predict-land-use", "/v1/predictions"):
                assert client.post(route, files={"file": sample}).status_code == 200
                assert client.post(route, files={"file": b"text"}).status_code == 415
            assert client.get("/v1/me", headers={"Authorization": "Bearer x"}).status_code == 401
            assert client.get("/nowhere").status_code == 404
            assert client.post("/auth/token", data=form).status_code == 400


def make_gateway(folder: Path, **changes: str) -> Gateway:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {
        **kept,
        "PORT": Gateway.free_port(),
        "METRICS_PORT": Gateway.free_port(),
        "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
        "AUTH__SIGNING_KEY": generate_signing_key("ES256"),
        "LEDGER__SIGNING_KEY": new_private_key(),
        "MODEL__URL": f"onnx://{ROOT}/artifacts/efficientnetb0-v1.0",
        "LIMITS__TOKEN": "1000/minute",
        "DRAIN_SECONDS": "0",
        **changes,
    }
    gateway = Gateway(folder, environment)
    for name, role in (("ana", "client"), ("olga", "operator")):
        added = gateway.run("users", "add", name, "--role", role, "--password-stdin", stdin=PASSWORD)
        assert added.returncode == 0, added.stderr
    return gateway


@pytest.fixture
def new_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Start a gateway of the test's own, with changed settings."""
    started: list[Gateway] = []

    def start(**changes: str) -> Gateway:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        gateway = make_gateway(folder, **changes)
        started.append(gateway)
        gateway.start()
        return gateway

    yield start
    for gateway in started:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all the tests that leave it as it is."""
    gateway = make_gateway(tmp_path_factory.mktemp("gateway"))
    gateway.start()
    yield gateway
    assert gateway.stop() == 0, gateway.log()


class IdentityProvider(ThreadingHTTPServer):
    """An OpenID provider on loopback that serves what the test tells it to; `fetched` lists what was asked for."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Documents)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.fetched: list[str] = []
        self.documents: dict[str, Any] = {}
        self.rotate()
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()

    def rotate(self) -> None:
        """Go on with another key alone."""
        self.key = load_signing_key("ES256", generate_signing_key("ES256"))
        metadata = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"}
        jwks = {"keys": [self.key.public_jwk()]}
        self.documents = {"/.well-known/openid-configuration": metadata, "/jwks": jwks}

    def token(self, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """An access token, with changes (`...` leaves a member out), signed by this key or another."""
        key, now = key or self.key, int(time.time())
        protected = {"alg": "ES256", "kid": self.key.kid, "typ": "at+jwt", **(header or {})}
        always = {"iss": self.issuer, "aud": "atalaya", "exp": now + 900, "iat": now, "sub": "ada"}
        claims = {**always, "scope": "land:read", **changes}
        message = f"{_encoded(protected)}.{_encoded(claims)}"
        return f"{message}.{_encoded(key.private.sign(message.encode()))}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


def _encoded(part: dict[str, Any] | bytes) -> str:
    if isinstance(part, dict):
        part = json.dumps({name: value for name, value in part.items() if value is not ...}).encode()
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


class _Documents(BaseHTTPRequestHandler):
    server: IdentityProvider

    def do_GET(self) -> None:
        self.server.fetched.append(self.path)
        document = self.server.documents.get(self.path)
        self.send_response(404 if document is None else 200)
        self.end_headers()
        self.wfile.write(document if isinstance(document, bytes) else json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        """Tests need no access log."""


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    """An outside identity provider of the test's own."""
    provider = IdentityProvider()
    yield provider
    provider.stop()
