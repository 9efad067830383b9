"""A Compose project in a copy of the repository, started with the commands of docs/deploy/compose.md."""

from __future__ import annotations

import io
import json
import os
import shutil
import ssl
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.gateway import PASSWORD, TIMEOUT_S
from tests.support.paths import ROOT

NAME = "atalaya-experiment"
_INHERITED = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")


def docker(*arguments: str, folder: Path = ROOT, stdin: bytes = b"") -> bytes:
    """Run Docker's command line, and return what it prints. Raises AssertionError."""
    # Variables of the shell have precedence over those in `.env`.
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    done = subprocess.run(
        ["docker", *arguments], cwd=folder, input=stdin, capture_output=True, check=False, env=environment
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout


@dataclass(frozen=True)
class Project:
    """Compose started in `folder`, which has the repository's files, `.env` and the secrets."""

    folder: Path

    def compose(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return docker("compose", "--project-name", NAME, *arguments, folder=self.folder, stdin=stdin)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run one `atalaya` command in the first gateway."""
        return self.compose("exec", "-T", "gateway", "atalaya", *arguments, stdin=stdin.encode()).decode()

    def make_secrets(self) -> None:
        """Make `.env` and the secrets, as the guide says."""
        print_secrets = ("run", "--rm", "--no-deps", "-T", "gateway", "atalaya", "secrets", "print", "--compose")
        with tarfile.open(fileobj=io.BytesIO(self.compose(*print_secrets))) as archive:
            archive.extractall(self.folder, filter="tar")

    def set(self, variables: Mapping[str, str]) -> None:
        """Replace these variables of `.env`."""
        env = self.folder / ".env"
        kept = [line for line in env.read_text().splitlines() if line.partition("=")[0] not in variables]
        env.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in variables.items())]) + "\n")

    def leave_out(self, service: str) -> None:
        """Do not start a service of the Compose file."""
        text = f"services:\n  {service}:\n    profiles: !override [left-out]\n"
        (self.folder / "docker-compose.override.yml").write_text(text)

    def start(self) -> None:
        """Start what is not running yet, and wait until every service is healthy, or running if it has no check."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "300")

    def states(self) -> dict[str, str]:
        """Return the state of each container, such as `running (healthy)`, by the name of its service."""
        lines = self.compose("ps", "--all", "--format", "json").decode().splitlines()
        containers = [json.loads(line) for line in lines]
        return {each["Service"]: f"{each['State']} ({each['Health']})" for each in containers}

    def restarts(self, service: str) -> int:
        """Return how often Docker has restarted the service's container."""
        (container,) = self.compose("ps", "--all", "--quiet", service).decode().split()
        return int(docker("inspect", "--format", "{{.RestartCount}}", container))

    def trusted(self) -> ssl.SSLContext:
        """Return a context that trusts the certification authority that Caddy created for localhost."""
        path = self.folder / "caddy-root.crt"
        self.compose("cp", "caddy:/data/caddy/pki/authorities/local/root.crt", str(path))
        return ssl.create_default_context(cafile=path)

    def client(self, trusted: ssl.SSLContext, **headers: str) -> httpx.Client:
        """Make a client of Caddy's published port."""
        return httpx.Client(
            base_url="https://localhost", verify=trusted, headers=headers, timeout=TIMEOUT_S, trust_env=False
        )

    def log_in(self, client: httpx.Client, user: str) -> str:
        """Add a user, and return an access token."""
        self.run("users", "add", user, "--role", "client", "--password-stdin", stdin=PASSWORD)
        form = {"grant_type": "password", "username": user, "password": PASSWORD}
        response = client.post("/auth/token", data=form)
        assert response.is_success, response.text
        return str(response.json()["access_token"])

    def count_recorded(self) -> dict[str, int]:
        """Return how often the ledger has each prediction, by its id."""
        statement = "SELECT id, count(*) FROM ledger_payloads WHERE status = 200 GROUP BY id"
        psql = ["psql", "--username=atalaya", "--tuples-only", "--no-align", f"--command={statement}"]
        rows = self.compose("exec", "-T", "postgres", *psql).decode().split()
        return {name: int(count) for name, _, count in (row.partition("|") for row in rows)}

    def remove(self) -> None:
        """Remove the containers, networks and volumes."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "30")


def copy_repository(folder: Path) -> Project:
    """Copy the files that git tracks, including changes that are not committed."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return Project(folder)
