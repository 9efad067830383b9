"""Silent engines, which take requests but do not respond."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from model.backends.batching import BatchingBackend
from model.backends.call import calling
from model.backends.oip.client import EngineClient
from model.backends.oip.endpoints import Endpoints
from model.backends.oip.errors import EngineUnavailable
from model.backends.oip.events import EngineEvent, EventKind
from model.backends.stub import StubBackend
from model.errors import DeadlineExceeded
from tests.model.backends.oip.scripted_engine import RED, ScriptedEngine, connected
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.servers.running import running

SILENCE_S = 1.5
"""How long a request waits for a silent engine: more than the second after which that counts against the engine."""


class LocalBackend(StubBackend):
    """Records how many images each call has."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.sizes.append(len(pixels))
        return super().predict_pooled(pixels)


@pytest.fixture
def silent() -> Iterator[ScriptedEngine]:
    """An engine that passes its checks and responds to no prediction."""
    with running(ScriptedEngine()) as engine, engine.script.silent:
        yield engine


def test_another_engine_takes_the_requests_of_a_silent_one(
    silent: ScriptedEngine, other: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request to a silent engine goes to the other one before the caller's deadline; the silent engine is ejected."""

    def make_client(endpoints: Endpoints, path: str, classes: int, channels: int | None, _: float) -> EngineClient:
        return EngineClient(endpoints, path, classes, channels, SILENCE_S)

    monkeypatch.setattr("model.backends.oip.backend.EngineClient", make_client)
    with connected(silent, other) as backend:
        events = list[EngineEvent]()
        backend.subscribe(events.append)
        for _ in range(10):
            with calling(time.monotonic() + PATIENCE_S):
                assert backend.predict(RED)[0].tolist() == [1.0, 0.0, 0.0]
    kinds = [event.kind for event in events if event.endpoint == silent.endpoint]
    assert EventKind.EJECTED in kinds
    assert kinds.count(EventKind.RETRIED) >= kinds.count(EventKind.SENT) >= 3


def test_the_wait_for_engines_ends_before_the_deadline(silent: ScriptedEngine) -> None:
    """If the only engine is silent, predictions fail with EngineUnavailable before their deadline, in batches too."""
    with connected(silent, longest_s=2 * SILENCE_S) as backend:
        for predict in (backend.predict_pooled, BatchingBackend(backend, largest=2, linger_s=0).predict_pooled):
            started = time.monotonic()
            with calling(started + 2 * PATIENCE_S), pytest.raises(EngineUnavailable):
                predict(RED)
            assert time.monotonic() - started < PATIENCE_S


def test_the_deadline_of_the_caller_ends_the_request(silent: ScriptedEngine) -> None:
    """At the caller's deadline, the request fails and is not passed to the local model."""
    with (
        connected(silent, longest_s=PATIENCE_S, local=LocalBackend()) as backend,
        calling(time.monotonic() + 0.1),
        pytest.raises(DeadlineExceeded),
    ):
        backend.predict(RED)


def test_the_local_model_takes_the_requests_of_a_silent_engine(silent: ScriptedEngine) -> None:
    """With a local model, even the last silent engine is ejected; the local model computes a batch image by image."""
    local = LocalBackend()
    with connected(silent, longest_s=0.2, local=local) as backend:
        events = list[EngineEvent]()
        backend.subscribe(events.append)
        rows = np.random.default_rng(0).integers(0, 256, (3, *local.info.input_spec.shape)).astype(np.uint8)
        results = [backend.predict_pooled(rows)]

        def is_ejected() -> bool:
            results.append(backend.predict_pooled(rows))
            return EventKind.EJECTED in {event.kind for event in events}

        wait_until(is_ejected)  # a request that this process sends too late does not count as an error of the engine
        results.append(backend.predict_pooled(rows))
    expected = StubBackend().predict_pooled(rows)
    for probabilities, pooled in results:
        np.testing.assert_allclose(probabilities, expected[0], atol=1e-6)
        np.testing.assert_allclose(pooled, expected[1], atol=1e-6)
    assert local.sizes == [1] * 3 * len(results)
