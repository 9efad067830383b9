"""A log that is configured as in production."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from monitoring.logs.configuration import configure_logging
from tests.monitoring.logs.sink import Sink


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A sink for logging configured as in production; afterwards the process-wide settings are restored."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    logging.captureWarnings(False)
    stream = Sink()
    configure_logging("info", stream)
    yield stream
    logging.captureWarnings(False)
    root.setLevel(before[0])
    logging.getLogger("atalaya").setLevel(logging.NOTSET)
    root.handlers[:] = before[1]
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
