"""Start a real gateway as its own process: for tests, benchmarks and experiments. Needs no development tools."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from api.commands.database import run_with_accounts
from api.server.listeners import local_url
from api.settings import Settings
from auth.accounts.service import AccountService
from auth.principal import Role
from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from tests.support.access_token import FreshToken
from tests.support.certificates import public_trust
from tests.support.linux import processes
from tests.support.paths import ATALAYA, FOREST, MODEL_URL
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

PASSWORD = "correct horse battery"
TIMEOUT_S = 60.0  # for one request; far more than a slow, busy machine needs
DECODED = 'atalaya_prediction_stage_seconds_count{stage="decode"}'  # images that a worker thread runs or has run
_INHERITED = ("PATH", "HOME", "LANG")


@dataclass
class Gateway:
    """A gateway with the users `ana` (client) and `olga` (operator).

    `environment` is that of the process; tests may change it between starts. `command` is what `start` runs.
    """

    folder: Path
    environment: dict[str, str]
    command: list[str] = field(default_factory=lambda: [str(ATALAYA), "serve"])
    started: subprocess.Popen[bytes] | None = None
    ready_s: float = 0.0
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.environment["PORT"])

    @property
    def base_url(self) -> str:
        scheme = "https" if "TLS_CERTIFICATE" in self.environment else "http"
        return local_url(scheme, self._host, self.port)

    @property
    def metrics_url(self) -> str:
        return f"{local_url('http', self._host, int(self.environment['METRICS_PORT']))}/metrics"

    @property
    def _host(self) -> str:
        return self.environment.get("HOST", "127.0.0.1")

    @property
    def database_path(self) -> Path:
        """The file of its SQLite database."""
        return Path(self.environment["DATABASE_URL"].removeprefix("sqlite:///"))

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self.started is None:
            raise RuntimeError("the gateway has not been started")
        return self.started

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.started is not None and self.started.poll() is None

    def workers(self) -> list[int]:
        """Process ids of the workers; none if the gateway is a single process."""
        return processes.children(self.pid)

    def resident_bytes(self) -> int:
        """Resident memory of the process and its workers now."""
        return sum(map(processes.resident_bytes, [self.pid, *self.workers()]))

    def with_settings(self, **changes: str) -> Gateway:
        """Return a gateway with the same folder, database and keys, and changed settings; not started."""
        environment = {**self.environment, **changes}
        return replace(self, environment=environment, command=[str(ATALAYA), "serve"], started=None, clients=[])

    def replica(self, folder: Path, **changes: str) -> Gateway:
        """Return another gateway with the same database, keys and issuer, on ports of its own; not started."""
        issuer = self.environment.get("AUTH__ISSUER", f"http://localhost:{self.port}")
        folder.mkdir(exist_ok=True)
        ports = {"PORT": str(free_port()), "METRICS_PORT": str(free_port())}
        return replace(self.with_settings(**{**ports, "AUTH__ISSUER": issuer, **changes}), folder=folder)

    def run(self, *arguments: str, stdin: str = "", limit_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run one `atalaya` command with the gateway's environment."""
        return subprocess.run(
            [ATALAYA, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.environment,
            timeout=limit_s,
        )

    def add_user(self, name: str, role: str = "client") -> None:
        """Add a user whose password is PASSWORD."""
        create_database(self.environment["DATABASE_URL"], **{name: Role(role)})

    def prepare_model(self) -> None:
        """Build the prepared copy of the model, which the next start uses. Raises RuntimeError."""
        if (prepared := self.run("models", "prepare")).returncode:
            raise RuntimeError(prepared.stderr)

    def start(self, output: int | None = None) -> None:
        """Launch the process and return once it is ready. Raises AssertionError."""
        self.launch(output)
        self.ready_s = wait_until(self.is_ready, message=self.log)

    def launch(self, output: int | None = None) -> None:
        """Start the process. It writes to the file that `log` reads, or to the descriptor `output` if there is one."""
        with (self.folder / "gateway.log").open("wb") as file:
            log = file if output is None else output
            self.started = subprocess.Popen(self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def is_ready(self) -> bool:
        if not self.is_running:
            raise AssertionError(f"the gateway has ended: {self.log()}")
        try:
            # The test decides which certificate to trust, not this check.
            return httpx.get(f"{self.base_url}/readyz", verify=False).is_success  # noqa: S501
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        for client in self.clients:
            client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def log(self) -> str:
        """All lines that the process has written since its last start, without one that it is writing."""
        return b"".join((self.folder / "gateway.log").read_bytes().rpartition(b"\n")[:2]).decode()

    def complete_log(self) -> str:
        """Return the log once it has the lines of all responses so far, which are written later. For one process."""
        request_id = uuid.uuid4().hex
        # A request that succeeds, because rejected ones are sampled when there are many.
        self.get("/.well-known/jwks.json", headers={"X-Request-ID": request_id}, verify=False)
        wait_until(lambda: request_id in self.log(), message=self.log)
        return self.log()

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET without credentials, on a connection of its own."""
        return httpx.get(f"{self.base_url}{path}", timeout=TIMEOUT_S, **{"verify": public_trust(), **options})

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST without credentials, on a connection of its own."""
        return httpx.post(f"{self.base_url}{path}", timeout=TIMEOUT_S, **{"verify": public_trust(), **options})

    def log_in(self, user: str = "ana", password: str = PASSWORD) -> httpx.Response:
        """Return the response of the token endpoint to a user name and a password."""
        return self.post("/auth/token", data={"grant_type": "password", "username": user, "password": password})

    def token(self, user: str = "ana") -> str:
        """Return a new access token. Raises RuntimeError."""
        response = self.log_in(user)
        if not response.is_success:
            raise RuntimeError(response.text)
        return str(response.json()["access_token"])

    def fresh_token(self, user: str = "ana") -> FreshToken:
        """An access token that is renewed before it expires."""
        return FreshToken(lambda: self.token(user))

    def client(self, user: str = "ana") -> httpx.Client:
        """Make a client that sends the user's token and renews it before it expires; `stop` closes it."""
        token, trust = self.fresh_token(user), public_trust()
        client = httpx.Client(base_url=self.base_url, auth=token, timeout=TIMEOUT_S, verify=trust)
        self.clients.append(client)
        return client

    def metric(self, sample: str) -> float:
        """Return the value of one sample, named with its labels as it is exposed; 0 if there is none."""
        lines = httpx.get(self.metrics_url, timeout=TIMEOUT_S, verify=public_trust()).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} ")), 0.0)

    def send_every_kind_of_request(self) -> None:
        """Send requests that succeed, are rejected, are unauthenticated, and name an unknown path."""
        image = FOREST.read_bytes()
        with httpx.Client(base_url=self.base_url, auth=self.fresh_token(), timeout=TIMEOUT_S) as client:
            statuses = [
                *(client.post(route, files={"file": image}).status_code for route in _PREDICTION_ROUTES),
                *(client.post(route, files={"file": b"text"}).status_code for route in _PREDICTION_ROUTES),
                client.get("/v1/me", headers={"Authorization": "Bearer x"}).status_code,
                client.get("/nowhere").status_code,
                self.log_in("ana", "wrong horse battery").status_code,
            ]
        if statuses != [200, 200, 415, 415, 401, 404, 400]:
            raise AssertionError(statuses)


_PREDICTION_ROUTES = ("/predict-land-use", "/v1/predictions")


def make_gateway(folder: Path, **changes: str) -> Gateway:
    """Make a gateway with its users, on SQLite and with the shipped model unless changed; not started."""
    environment = {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "ATALAYA_HOME": str(folder),
        "PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
        "AUTH__SIGNING_KEY": generate_signing_key("ES256"),
        "LEDGER__SIGNING_KEY": new_private_key(),
        "MODEL__URL": MODEL_URL,
        "MODEL__PREPARE": "false",  # for one start, building the copy costs more than it saves
        "LIMITS__TOKEN": "1000/minute",
        "LIMITS__REQUESTS": "100000/minute",
        "DRAIN_SECONDS": "0",
        **changes,
    }
    create_database(environment["DATABASE_URL"], ana=Role.CLIENT, olga=Role.OPERATOR)
    return Gateway(folder, environment)


def create_database(url: str, **users: Role) -> None:
    """Add users whose password is PASSWORD to a database, which is created if it does not exist."""
    path = Path(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or path.exists():
        _add_users(url, users.items())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(_build_database(tuple(users.items())))


@cache
def _build_database(users: tuple[tuple[str, Role], ...]) -> bytes:
    """Return a database file with the users, to be copied: migrations and password hashes take 0.2 s."""
    with tempfile.TemporaryDirectory(prefix="atalaya-seed-") as folder:
        path = Path(folder) / "gateway.db"
        _add_users(f"sqlite:///{path}", users)
        return path.read_bytes()


def _add_users(url: str, users: Iterable[tuple[str, Role]]) -> None:
    async def add(accounts: AccountService) -> None:
        for name, role in users:
            await accounts.add(name, role, PASSWORD)

    with ThreadPoolExecutor(1) as thread:  # the caller's thread may have an event loop
        thread.submit(run_with_accounts, Settings(database_url=url), add, create=True).result()


@contextmanager
def running_gateway(folder: Path | None = None, **changes: str) -> Iterator[Gateway]:
    """Run a gateway without rate limits on predictions; without a folder, in one that is removed at the end.

    It serves the prepared copy of the shipped model, as after its first start. If `changes` choose another model, a
    copy is prepared only with MODEL__PREPARE=true.
    """
    own = Path(tempfile.mkdtemp(prefix="atalaya-gateway-"))
    prepare = {} if "MODEL__URL" in changes else {"MODEL__PREPARE": "true"}
    gateway = make_gateway(folder or own, **{"LIMITS__PREDICT": "10000000/minute", **prepare, **changes})
    try:
        if gateway.environment["MODEL__PREPARE"] == "true":
            gateway.prepare_model()
        gateway.start()
        yield gateway
    finally:
        if gateway.is_running:
            gateway.stop()
        shutil.rmtree(own)
