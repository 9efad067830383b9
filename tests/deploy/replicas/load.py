"""Callers that predict continuously through Caddy, and the outcome of each request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.deploy.replicas.cluster import Cluster
from tests.e2e.proxies.servers import REPLICA
from tests.support.callers import running_threads
from tests.support.paths import FOREST

CONNECTIONS = 12


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it was sent (`time.monotonic`), its status, and the replica to which Caddy sent it."""

    sent_at: float
    status: int
    replica: str
    id: str | None


@contextmanager
def load(cluster: Cluster, key: str) -> Iterator[list[Outcome]]:
    """Send predictions for the duration of the block; afterwards, the list contains the outcome of every request."""
    image, outcomes = FOREST.read_bytes(), list[Outcome]()
    headers = {"X-API-Key": key, "Content-Type": "image/jpeg"}

    def send(ended: threading.Event) -> None:
        with cluster.client() as client:
            while not ended.is_set():
                sent_at = time.monotonic()
                response = client.post("/v1/predictions", content=image, headers=headers)
                prediction_id = response.json()["id"] if response.is_success else None
                outcomes.append(Outcome(sent_at, response.status_code, response.headers[REPLICA], prediction_id))

    with running_threads(send, CONNECTIONS):
        yield outcomes
