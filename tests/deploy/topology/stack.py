"""The services of docker-compose.yml, started with the dependencies and health checks in the file."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.topology.compose_file import read_compose_file, read_env_file
from tests.deploy.topology.containers import Container, Networks
from tests.support.paths import ATALAYA, BIN, ROOT
from tests.support.polling import wait_until
from tests.support.requirements import find_program, missing

# Programs from Debian, and Caddy from PyPI, replace the images. There is no Grafana.
SERVICES = ("postgres", "redis", "gateway", "caddy", "prometheus", "alertmanager", "node-exporter")
_IMAGE_USERS = {"gateway": "10001:10001"}
_IMAGE_VARIABLES: dict[str, dict[str, str]] = {
    "gateway": {"ATALAYA_HOME": "/app", "HOST": "::", "MODEL__PREPARE": "false"},
    "caddy": {"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": "/config", "HOME": "/config"},
}
# Does what the image's entry point does on its first start.
_START_POSTGRES = """
set -e
export PGDATA=/var/lib/postgresql/data
initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 \
  --encoding=UTF8 --no-sync
echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
echo "CREATE DATABASE $POSTGRES_DB" | postgres --single postgres
exec postgres -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql -c fsync=off
"""


class Stack:
    """The Compose project. `folder` contains what the operator creates: `.env` and the secrets."""

    def __init__(self, folder: Path) -> None:
        self.variables = read_env_file(folder / ".env")
        self.compose = read_compose_file(self.variables)
        for secret in self.compose["secrets"].values():
            secret["file"] = str(folder / secret["file"])
        self.networks = Networks(self.compose, SERVICES)
        self._folder = folder
        self.containers: dict[str, Container] = {}

    def start(self) -> None:
        """Start each service once the services that it depends on are healthy."""
        for name in SERVICES:
            for other, terms in self.compose["services"][name].get("depends_on", {}).items():
                assert terms == {"condition": "service_healthy"}
                wait_until(self.containers[other].is_healthy, message=self.containers[other].log)
            self.containers[name] = self._create(name)
            self.containers[name].start()

    def stop(self) -> None:
        for container in reversed(self.containers.values()):
            container.stop()
        self.networks.remove()

    def fetch(self, service: str, url: str) -> Any:
        """Fetch the JSON document at a URL from a service's container. Returns None if that fails."""
        fetched = self.containers[service].run("curl", "--silent", "--show-error", "--fail", url)
        return json.loads(fetched.stdout) if fetched.returncode == 0 else None

    def _create(self, name: str) -> Container:
        service: dict[str, Any] = dict(self.compose["services"][name])
        if name == "gateway":
            service["healthcheck"] = {"test": ["CMD", *_image_health_check()]}
        folder = self._folder / name
        folder.mkdir()
        command, extra = _find_command(name, service)
        return Container(
            folder,
            service,
            self.compose["secrets"],
            self.networks.join(name),
            self.networks.hosts(name),
            command,
            user=service.get("user", _IMAGE_USERS.get(name, "root")),
            environment={**_IMAGE_VARIABLES.get(name, {}), **extra},
        )


def _image_health_check() -> list[str]:
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    command: list[str] = json.loads(check)
    return command


def _find_command(name: str, service: Mapping[str, Any]) -> tuple[Sequence[str], dict[str, str]]:
    """Return the container's command, and additional variables that this machine's program needs."""
    command = service.get("command", [])
    match name:
        case "gateway":
            return ["atalaya", "serve"], {}
        case "postgres":
            found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
            if not found:
                missing("PostgreSQL is not installed: apt-get install postgresql")
            return ["bash", "-c", _START_POSTGRES], {"PATH": f"{found[-1]}:/usr/bin:/bin"}
        case "caddy":
            return [str(BIN / "caddy"), "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"], {}
        case "prometheus":
            # The default from Prometheus 3 on.
            return [find_program("prometheus"), *command, "--enable-feature=expand-external-labels"], {}
        case "alertmanager" | "node-exporter":
            return [find_program(f"prometheus-{name}"), *command], {}
    find_program(command[0])
    return command, {}


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Prepare `.env` and the secrets as the guide says, and start the profiles core, tls and monitoring."""
    archive = subprocess.run([ATALAYA, "secrets", "print", "--compose"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-xkp"], check=True, input=archive, cwd=folder)
    stack = Stack(folder)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
