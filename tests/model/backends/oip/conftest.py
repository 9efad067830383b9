"""Engines whose responses the test scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.backends.oip.scripted_engine import ScriptedEngine
from tests.support.servers.running import running


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with running(ScriptedEngine()) as engine:
        yield engine


@pytest.fixture
def other() -> Iterator[ScriptedEngine]:
    with running(ScriptedEngine()) as engine:
        yield engine
