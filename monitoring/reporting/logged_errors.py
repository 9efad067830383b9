"""Reports logged errors: exceptions, wherever they are logged, and failures of processes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.typing import EventDict, WrappedLogger

from monitoring.reporting.sentry import ErrorReporter

_LEVELS = frozenset({"error", "exception", "critical"})
_TAGS = ("logger", "request_id", "route", "pid", "exit_status")
_PROCESS_LOGGER = "atalaya.workers"
_REQUEST_LOGGER = "atalaya.access"  # the middleware reports the errors of requests itself

# The reporters of this process. Errors go to the last one.
_reporters: list[ErrorReporter] = []
os.register_at_fork(after_in_child=_reporters.clear)  # a child must not use the connection of its parent

log = structlog.get_logger("atalaya.threads")


class ProcessFailure(Exception):
    """A process of the gateway failed. The text is the event in the log."""


@contextmanager
def reporting_logged_errors(reporter: ErrorReporter) -> Iterator[None]:
    """Report errors that are logged within the block, and log the errors that end a thread."""
    _reporters.append(reporter)
    inherited, threading.excepthook = threading.excepthook, _log_thread_error
    try:
        yield
    finally:
        threading.excepthook = inherited
        _reporters.remove(reporter)


def report_logged_error(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Report an event that has an exception, or that logs the failure of a process; return it unchanged.

    This is a structlog processor.
    """
    if _reporters and method in _LEVELS and event.get("logger") != _REQUEST_LOGGER:
        error = _find_error(event)
        if error is not None:
            tags = {"event": str(event["event"]), **{name: str(event[name]) for name in _TAGS if name in event}}
            _reporters[-1].capture(error, tags, event.get("principal"))
    return event


def _find_error(event: EventDict) -> BaseException | None:
    info = event.get("exc_info")
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple):
        error: BaseException | None = info[1]
        return error
    if info:
        return sys.exc_info()[1]
    return ProcessFailure(event["event"]) if event.get("logger") == _PROCESS_LOGGER else None


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        log.error("thread_failed", thread=args.thread.name if args.thread else "", exc_info=args.exc_value)
