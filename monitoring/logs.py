"""Logging as one JSON object per line, for this project's code and all libraries."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

import structlog
from structlog.contextvars import merge_contextvars
from structlog.stdlib import ProcessorFormatter, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

from monitoring.redaction import redact_event

# Below this level libraries log what passes through them: SQL parameters and rows, forms with passwords, headers.
_LIBRARY_LEVEL = logging.INFO
# Libraries with handlers of their own, which are removed so that each line is written once.
_LIBRARIES = ("uvicorn", "uvicorn.error", "uvicorn.access", "sqlalchemy", "alembic", "py.warnings")


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send structlog, the standard library's loggers and warnings to `stream` (standard output by default).

    Each line has `timestamp` (UTC, ISO 8601), `level`, `event`, `logger`, the variables bound in
    `structlog.contextvars` (request_id, principal), and an exception as text; credentials are masked. At `debug`, only
    this project's own messages have that level.
    A later call replaces the configuration. Raises ValueError for an unknown level.
    """
    root = logging.getLogger()
    own = logging.getLogger("atalaya")
    own.setLevel(level.upper())
    root.setLevel(max(own.level, _LIBRARY_LEVEL))
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(ProcessorFormatter(processors=_pipeline(ProcessorFormatter.remove_processors_meta)))
    root.handlers[:] = [handler]
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # which plugins it has: seven lines
    logging.captureWarnings(True)
    output = stream or sys.stdout
    structlog.configure(
        processors=_pipeline(),
        logger_factory=lambda name="": _LineLogger(name, output),
        wrapper_class=structlog.make_filtering_bound_logger(own.level),
        cache_logger_on_first_use=True,
    )


class _LineLogger:
    """Writes the lines of this project's code, without a detour through the standard library's records and handlers.

    As those do, it ignores that a line cannot be written: that must not end a request.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def write(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = write


def _pipeline(*more: Processor) -> list[Processor]:
    return [
        merge_contextvars,
        add_logger_name,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        *more,
        _redact,
        _add_level_and_time,
        _render,
    ]


def _add_level_and_time(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["level"] = "error" if method == "exception" else method
    event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return event


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Redact after all steps that could add a credential."""
    return dict(redact_event(event))


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _encode(event)


_encode = json.JSONEncoder().encode  # json.dumps would create an encoder for every line
