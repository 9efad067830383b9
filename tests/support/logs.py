"""Logging configured as in production, for one test."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import structlog

from monitoring.logs.configuration import configure_logging
from monitoring.logs.formats import LogFormat
from monitoring.logs.line_queue import LineQueue


def configure_test_logging(
    level: str, stream: TextIO, *, log_format: LogFormat = LogFormat.OTEL, queues: Sequence[LineQueue] = ()
) -> None:
    """Call `configure_logging`, but without caching loggers, which would keep this configuration in later tests."""
    configure_logging(level, stream, service="atalaya", log_format=log_format, queues=queues)
    structlog.configure(cache_logger_on_first_use=False)


@contextmanager
def restored_logging() -> Iterator[None]:
    """Restore the logging of the process when the context ends."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    logging.captureWarnings(False)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        logging.getLogger("atalaya").setLevel(logging.NOTSET)
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()


@contextmanager
def discarded_logging() -> Iterator[None]:
    """Discard this project's log, which a gateway in this process would write between the output of a command."""
    with restored_logging():
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
        yield
