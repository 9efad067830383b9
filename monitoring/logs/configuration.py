"""Configures logging: one line for each event, for this project's code and all libraries."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TextIO

import structlog
from structlog.contextvars import merge_contextvars
from structlog.stdlib import ProcessorFormatter, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

from monitoring.chains.timestamps import format_timestamp
from monitoring.logs.formats import LogFormat, make_render, name_attributes
from monitoring.logs.line_queue import LineQueue
from monitoring.logs.sampling import REFUSALS_PER_S, RefusalSampler
from monitoring.redaction import redact_event
from monitoring.reporting.logged_errors import report_logged_error

# Below this level, libraries log the data that they process: SQL parameters and rows, forms with passwords, headers.
_LIBRARY_LEVEL = logging.INFO
# Libraries with handlers of their own, which are removed so that each line is written once.
_LIBRARIES = ("uvicorn", "uvicorn.error", "uvicorn.access", "sqlalchemy", "alembic", "py.warnings")
# The lowest level that these libraries may log.
_LEVELS = {
    "alembic.runtime.plugins": logging.WARNING,  # lists its plugins, in seven lines
    # It logs the URL of each request, which may contain a key; sending the log would log further lines forever.
    "httpx": logging.WARNING,
    # It warns of each malformed form. Callers could fill the log: the gateway's own line for the request is sampled.
    "python_multipart": logging.ERROR,
}


def configure_logging(
    level: str,
    stream: TextIO | None = None,
    *,
    service: str,
    log_format: LogFormat = LogFormat.OTEL,
    queues: Sequence[LineQueue] = (),
    processes: int = 1,
) -> None:
    """Send structlog, the standard library's loggers and warnings to `stream` (standard output by default).

    Each line has the time (UTC, ISO 8601), the level, a message, the name of the `service`, the logger, the variables
    bound in `structlog.contextvars`, and an exception as text; credentials are masked. `queues` get the same lines, as
    JSON whatever `log_format` is. At `debug`, only this project's own messages have that level. Rejected requests are
    sampled (RefusalSampler) so that all `processes` together log no more of them than a single process would.
    A later call replaces the configuration. Raises ValueError for an unknown level.
    """
    root = logging.getLogger()
    own = logging.getLogger("atalaya")
    own.setLevel(level.upper())
    root.setLevel(max(own.level, _LIBRARY_LEVEL))
    output = stream or sys.stdout
    render = _Renderer(log_format, queues)
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        ProcessorFormatter(processors=_pipeline(render, service, False, ProcessorFormatter.remove_processors_meta))
    )
    root.handlers[:] = [handler]
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name, lowest in _LEVELS.items():
        logging.getLogger(name).setLevel(lowest)
    logging.captureWarnings(True)
    sampler = RefusalSampler(max(1, REFUSALS_PER_S // processes))
    structlog.configure(
        processors=[sampler, *_pipeline(render, service, True)],
        logger_factory=lambda name="": _LineLogger(name, output),
        wrapper_class=structlog.make_filtering_bound_logger(own.level),
        cache_logger_on_first_use=True,
    )


class _LineLogger:
    """Writes the lines of this project's code, bypassing the standard library's records and handlers.

    Like those handlers, it ignores write errors, which must not fail a request.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def write(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = write


class _Renderer:
    """The last processor: renders the line, and puts it into the queues as JSON."""

    def __init__(self, log_format: LogFormat, queues: Sequence[LineQueue]) -> None:
        self._render = make_render(log_format)
        self._render_json = self._render if log_format.is_json else make_render(LogFormat.OTEL)
        self._queues = queues

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        line = self._render(event)
        if self._queues:
            json_line = line if self._render_json is self._render else self._render_json(event)
            for queue in self._queues:
                queue.put(json_line.encode() + b"\n")
        return line


def _pipeline(render: Processor, service: str, is_own: bool, *more: Processor) -> list[Processor]:
    return [
        merge_contextvars,
        add_logger_name,
        report_logged_error,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        *more,
        _redact,
        partial(_name_attributes, service, is_own),
        render,
    ]


def _name_attributes(service: str, is_own: bool, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    level = "error" if method == "exception" else method
    timestamp = format_timestamp(datetime.now(UTC))
    return name_attributes(event, level, timestamp, is_own=is_own, service=service)


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Redact after all steps that could add a credential."""
    return dict(redact_event(event))
