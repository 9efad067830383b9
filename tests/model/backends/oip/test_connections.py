"""The connections that a back end keeps to an engine."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Callable

import pytest

from model.backends.oip.connections import PLAIN, Connections
from tests.model.backends.oip.scripted_engine import ScriptedEngine
from tests.support.polling import PATIENCE_S


class Lock:
    """A lock that calls `before` once, right before it is taken for the second time."""

    def __init__(self) -> None:
        self.before: Callable[[], object] = lambda: None
        self._lock, self._taken = threading.Lock(), 0

    def __enter__(self) -> None:
        self._taken += 1
        if self._taken == 2:
            self.before()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_connection_is_closed_although_its_request_ends_during_close(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that ends just when the connections are closed leaves no open socket behind."""
    lock = Lock()
    with monkeypatch.context() as patch:
        patch.setattr("model.backends.oip.connections.threading.Lock", lambda: lock)
        connections = Connections("127.0.0.1", engine.server_address[1], "127.0.0.1", PLAIN)
    lock.before = connections.close
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        assert connections.exchange("GET", "/v2", time.monotonic() + PATIENCE_S).status == 200
        lock.before = lambda: None
        del connections
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
