"""Callers who predict without pause through Caddy's published port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from tests.support.callers import running_threads
from tests.support.paths import FOREST

CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it was sent (`time.monotonic`), its status, and the id of its prediction."""

    sent_at: float
    status: int
    id: str = ""

    @property
    def is_failed(self) -> bool:
        return self.status != HTTPStatus.OK


@contextmanager
def load(client: httpx.Client) -> Iterator[list[Outcome]]:
    """Send predictions for the duration of the block; afterwards the list has the outcome of every request."""
    image, outcomes = FOREST.read_bytes(), list[Outcome]()

    def send(ended: threading.Event) -> None:
        while not ended.is_set():
            sent_at = time.monotonic()
            try:
                response = client.post("/v1/predictions", content=image, headers={"Content-Type": "image/jpeg"})
            except httpx.TransportError:
                outcomes.append(Outcome(sent_at, 0))
                continue
            prediction_id = response.json()["id"] if response.is_success else ""
            outcomes.append(Outcome(sent_at, response.status_code, prediction_id))

    with running_threads(send, CONNECTIONS):
        yield outcomes
