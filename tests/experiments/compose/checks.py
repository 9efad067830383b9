"""The checks of the experiment. Each returns what it found, and raises AssertionError if it fails."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import httpx

from tests.experiments.compose.load import CONNECTIONS, Outcome, load
from tests.experiments.compose.project import NAME, Project, docker
from tests.support.paths import FOREST
from tests.support.polling import wait_until

REPLICAS = ("gateway", "gateway-2", "gateway-3")
MAX_AT_REST_PERCENT = 50.0
SETTINGS = {
    "LIMITS__PREDICT": "1000000/minute",
    # Avoid overload on a slow machine.
    "MODEL__QUEUE_SECONDS": "60",
    "MODEL__DEADLINE_SECONDS": "300",
}
# Docker does not restart a container that `docker kill` has ended. Process 1 is Docker's init process.
_CRASH = "import os; os.kill(min(int(name) for name in os.listdir('/proc') if name.isdecimal() and name != '1'), 9)"


@dataclass
class Checks:
    """`build_options` are those of the gateway's image; `outcomes` are of all predictions under load."""

    project: Project
    build_options: list[str]
    outcomes: list[Outcome] = field(default_factory=list)

    @cached_property
    def client(self) -> httpx.Client:
        """A client of Caddy with the access token of a new user."""
        client = self.project.client(self.project.trusted())
        client.headers["Authorization"] = f"Bearer {self.project.log_in(client, 'ana')}"
        return client

    def start(self) -> str:
        """The guide's commands build the image, make the secrets and start every service."""
        self.project.compose("build", *self.build_options, "gateway")
        self.project.make_secrets()
        self.project.set(SETTINGS)
        self.project.start()
        self.project.run("healthcheck", "--wait", "60")
        return ", ".join(sorted(self.project.states()))

    def predict(self) -> str:
        """A user logs in and predicts over HTTPS, with a certificate of Caddy's own authority."""
        response = self.client.post("/v1/predictions", files={"file": FOREST.read_bytes()})
        assert response.is_success, response.text
        assert response.json()["label"] == "forest"
        return f"{response.json()['label']} {response.json()['confidence']}"

    def add_replicas(self) -> str:
        """Two lines in `.env` add two gateways to the one that runs."""
        gateways = " ".join(f"{name}:8000" for name in REPLICAS)
        self.project.set({"COMPOSE_PROFILES": "core,tls,monitoring,replicas", "GATEWAYS": gateways})
        self.project.start()
        states = self.project.states()
        assert {states[name] for name in REPLICAS} == {"running (healthy)"}, states
        return f"{len(REPLICAS)} healthy"

    def scrape(self) -> str:
        """Prometheus finds and scrapes every gateway and the machine."""
        expected = {"atalaya": len(REPLICAS), "node": 1}

        def count_up() -> Counter[str]:
            targets = httpx.get("http://127.0.0.1:9090/api/v1/targets", trust_env=False).json()["data"]["activeTargets"]
            return Counter(target["labels"]["job"] for target in targets if target["health"] == "up")

        wait_until(lambda: count_up() == expected, message=count_up)
        return ", ".join(f"{count} {job}" for job, count in expected.items())

    def crash_replica(self) -> str:
        """When a gateway crashes, only the requests that it was serving fail, and Docker restarts it."""
        with load(self.client) as outcomes:
            wait_until(lambda: len(outcomes) > CONNECTIONS)
            self.project.compose("exec", "-T", REPLICAS[1], "python3", "-c", _CRASH)
            crashed_at = time.monotonic()
            wait_until(lambda: self.project.restarts(REPLICAS[1]) == 1)
            wait_until(lambda: self.project.states()[REPLICAS[1]] == "running (healthy)")
            self._wait_for_more(outcomes)
        self.outcomes += outcomes
        failed = [outcome for outcome in outcomes if outcome.is_failed]
        assert len(failed) <= CONNECTIONS, failed
        assert all(outcome.sent_at < crashed_at for outcome in failed), failed
        return f"{len(outcomes)} requests, {len(failed)} failed"

    def restart(self, service: str) -> str:
        """No request fails while Compose restarts a service."""
        with load(self.client) as outcomes:
            wait_until(lambda: len(outcomes) > CONNECTIONS)
            self.project.compose("restart", service)
            wait_until(lambda: self.project.states()[service] == "running (healthy)")
            self._wait_for_more(outcomes)
        self.outcomes += outcomes
        failed = [outcome for outcome in outcomes if outcome.is_failed]
        assert not failed, failed
        return f"{len(outcomes)} requests, 0 failed"

    def verify_ledger(self) -> str:
        """The ledger has every returned prediction exactly once, and its chains are valid."""
        returned = {outcome.id for outcome in self.outcomes if not outcome.is_failed}
        wait_until(lambda: returned <= self.project.count_recorded().keys())
        assert set(self.project.count_recorded().values()) == {1}
        verified = json.loads(self.project.run("ledger", "verify", "--json"))
        return f"{len(returned)} predictions, {verified['entries']} entries valid"

    def rest(self) -> str:
        """A gateway at rest uses less than half of its memory limit."""
        (container,) = self.project.compose("ps", "--quiet", REPLICAS[0]).decode().split()
        usage = docker("stats", "--no-stream", "--format", "{{.MemPerc}} {{.MemUsage}}", container).decode().strip()
        percent, _, used = usage.partition("% ")
        assert float(percent) < MAX_AT_REST_PERCENT, usage
        return used

    def remove(self) -> str:
        """`docker compose down --volumes` leaves no container, volume or network."""
        self.project.remove()
        mine = f"label=com.docker.compose.project={NAME}"
        left = [docker(kind, "ls", "--quiet", "--filter", mine) for kind in ("volume", "network")]
        left.append(docker("container", "ls", "--all", "--quiet", "--filter", mine))
        assert not b"".join(left), left
        return "nothing left"

    @staticmethod
    def _wait_for_more(outcomes: list[Outcome]) -> None:
        later = len(outcomes) + 5 * CONNECTIONS
        wait_until(lambda: len(outcomes) > later)
