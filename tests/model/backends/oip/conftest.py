"""Engines whose responses the test scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.backends.oip import checks, endpoints
from tests.model.backends.oip.scripted_engine import ScriptedEngine
from tests.support.polling import PATIENCE_S
from tests.support.servers.running import running


@pytest.fixture(autouse=True)
def patient_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check working engines only at the start, and wait for slow ones.

    A check in the middle of a test may take its connection, and a slow one ejects its engine.
    """
    monkeypatch.setattr(endpoints, "CHECK_INTERVAL_S", 10 * PATIENCE_S)
    monkeypatch.setattr(checks, "_CHECK_LIMIT_S", 2 * PATIENCE_S)


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with running(ScriptedEngine()) as engine:
        yield engine


@pytest.fixture
def other() -> Iterator[ScriptedEngine]:
    with running(ScriptedEngine()) as engine:
        yield engine
