"""Logging configured as in production."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.monitoring.logs.sink import Sink
from tests.support.logs import configure_test_logging, restored_logging


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A sink for logging configured as in production; afterwards the process-wide settings are restored."""
    with restored_logging():
        stream = Sink()
        configure_test_logging("info", stream)
        yield stream
