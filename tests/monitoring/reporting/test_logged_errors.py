"""Reporting errors that are logged anywhere in the process."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator

import pytest
import structlog

from monitoring.reporting.logged_errors import ProcessFailure, reporting_logged_errors
from tests.support.logs import configure_test_logging, restored_logging
from tests.support.servers.sentry import KeepingReporter


@pytest.fixture
def reporter() -> Iterator[KeepingReporter]:
    kept = KeepingReporter()
    with restored_logging(), reporting_logged_errors(kept):
        configure_test_logging("info", io.StringIO())
        yield kept


def fail() -> None:
    raise ZeroDivisionError


def test_logged_exception(reporter: KeepingReporter) -> None:
    """An exception that is logged with its stack is reported with its event, request and principal only."""
    log = structlog.get_logger("atalaya.ledger")
    try:
        fail()
    except ZeroDivisionError:
        log.exception("ledger_not_written", request_id="r-1", principal="p-1", password="x")
    ((error, tags, principal),) = reporter.captured
    assert isinstance(error, ZeroDivisionError)
    assert tags == {"event": "ledger_not_written", "logger": "atalaya.ledger", "request_id": "r-1"}
    assert principal == "p-1"


def test_exception_of_a_library(reporter: KeepingReporter) -> None:
    """An exception that a library logs through the standard library is reported."""
    try:
        fail()
    except ZeroDivisionError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    ((error, tags, _),) = reporter.captured
    assert isinstance(error, ZeroDivisionError)
    assert tags["logger"] == "asyncio"


def test_end_of_a_thread(reporter: KeepingReporter) -> None:
    """An error that ends a thread is logged and reported."""
    thread = threading.Thread(target=fail, name="predict_0")
    thread.start()
    thread.join()
    ((error, tags, _),) = reporter.captured
    assert isinstance(error, ZeroDivisionError)
    assert tags == {"event": "thread_failed", "logger": "atalaya.threads"}


def test_failure_of_a_process(reporter: KeepingReporter) -> None:
    """The failure of a worker process is reported, although there is no exception."""
    structlog.get_logger("atalaya.workers").error("worker_died", pid=7, exit_status=-9)
    ((error, tags, _),) = reporter.captured
    assert isinstance(error, ProcessFailure)
    assert tags == {"event": "worker_died", "logger": "atalaya.workers", "pid": "7", "exit_status": "-9"}


def test_what_is_not_reported(reporter: KeepingReporter) -> None:
    """Warnings, expected errors without an exception, and errors of requests (reported elsewhere) are not reported."""
    structlog.get_logger("atalaya.ledger").error("ledger_spooling")
    structlog.get_logger("atalaya.workers").warning("process_replacing")
    structlog.get_logger("atalaya.access").error("unhandled_error", exc_info=ValueError())
    logging.getLogger("asyncio").warning("slow callback", exc_info=ValueError())
    assert reporter.captured == []


def test_the_innermost_reporter_gets_the_error(reporter: KeepingReporter) -> None:
    """Only the innermost reporter gets an error, so a forked worker does not use the reporter it inherited."""
    own = KeepingReporter()
    with reporting_logged_errors(own):
        structlog.get_logger("atalaya.workers").error("parent_died")
    assert len(own.captured) == 1
    assert reporter.captured == []
