"""A real MLflow server on loopback, with authentication."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from model.registry.mlflow.server import Credentials, MlflowServer
from tests.support.certificates import public_trust
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port
from tests.support.requirements import missing

ENVIRONMENT = ROOT / ".venv-mlflow"
MODEL = "landuse"
USER = "atalaya"
_AUTH = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@dataclass
class RunningMlflow:
    """An MLflow server with its data in `folder`. `password` is that of USER, its administrator."""

    folder: Path
    port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which a gateway mirrors the server."""
        return {
            "MODEL__REGISTRY": f"mlflow+{self.url}",
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }

    @property
    def client_environment(self) -> dict[str, str]:
        """The variables for MLflow's own client, which runs in the server's virtual environment."""
        return {**_quiet(), "MLFLOW_TRACKING_URI": self.url, **self.settings}

    def delete(self, call: str, **members: str) -> None:
        """Send a DELETE request, which the gateway never does."""
        url, auth = f"{self.url}/api/2.0/mlflow/{call}", (USER, self.password)
        httpx.request("DELETE", url, json=members, auth=auth, timeout=PATIENCE_S).raise_for_status()

    def find_file(self, full_name: str, filename: str) -> Path:
        """Return the path of a published artefact's file in the server's storage, so that a test can damage it."""
        (path,) = (self.folder / "artifacts").rglob(f"{full_name}/{filename}")
        return path

    def start(self) -> None:
        """Start the server with the data stored so far. Raises LookupError if MLflow is not installed."""
        program = ENVIRONMENT / "bin" / "mlflow"
        if not program.exists():
            raise LookupError("MLflow is not installed: make mlflow")
        configuration = self.folder / "auth.ini"
        configuration.write_text(_AUTH.format(folder=self.folder, user=USER, password=self.password))
        command = [str(program), "server", "--app-name=basic-auth"]
        process = ["--host=127.0.0.1", f"--port={self.port}", "--workers=1"]
        stores = [
            f"--backend-store-uri=sqlite:///{self.folder}/mlflow.db",
            f"--artifacts-destination={self.folder}/artifacts",
        ]
        environment = {
            **_quiet(),
            "MLFLOW_AUTH_CONFIG_PATH": str(configuration),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.password,
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *process, *stores],
                env=environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self.is_ready)
        self._store_quick_hash()

    def _store_quick_hash(self) -> None:
        """Store a password hash of one round: the server checks it on each request, and its own takes 0.1 s."""
        digest = hashlib.pbkdf2_hmac("sha256", self.password.encode(), b"salt", 1).hex()
        with closing(sqlite3.connect(self.folder / "auth.db")) as connection, connection:
            connection.execute("UPDATE users SET password_hash = ?", [f"pbkdf2:sha256:1$salt${digest}"])

    def is_ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"the server has ended: {(self.folder / 'server.log').read_text()}")
        try:
            return httpx.get(f"{self.url}/health", verify=public_trust()).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill the server and its workers."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)


@contextmanager
def running_mlflow(folder: Path) -> Iterator[RunningMlflow]:
    """Run an empty server with SQLite, which serves the artefacts itself. Skips the test without MLflow."""
    server = RunningMlflow(folder)
    try:
        server.start()
        yield server
    except LookupError as error:
        missing(str(error))
    finally:
        server.kill()


@contextmanager
def open_client(server: RunningMlflow) -> Iterator[MlflowServer]:
    with closing(MlflowServer(server.url, Credentials(USER, server.password))) as client:
        yield client


def register(server: MlflowServer, name: str, version: Mapping[str, Any], alias: str, **changes: str) -> None:
    """Register the artefact of an existing version again, as another version of the registered model `name`."""
    members = {"source": version["source"], "run_id": version["run_id"], **changes}
    created = server.post("model-versions/create", name=name, **members)["model_version"]
    server.post("registered-models/alias", name=name, alias=alias, version=created["version"])


def _quiet() -> dict[str, str]:
    """Return an environment in which MLflow sends no telemetry and starts no processes for jobs."""
    switches = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return {"PATH": os.environ["PATH"], "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **switches}
