"""Logging as JSON lines."""

from __future__ import annotations

import base64
import io
import json
import logging
import secrets
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from monitoring.logs import configure_logging


class Sink(io.StringIO):
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def line(self) -> dict[str, Any]:
        (only,) = self.lines()
        return only


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


def make_jwt() -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "ES256"}).encode()).rstrip(b"=").decode()
    return f"{header}.{secrets.token_urlsafe(30)}.{secrets.token_urlsafe(64)}"


def test_fields(sink: Sink) -> None:
    """A line is a JSON object with timestamp, level, event, logger and the values given."""
    structlog.get_logger("api.routes").info("prediction answered", label="forest", confidence=0.93)
    line = sink.line()
    assert line | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "prediction answered",
        "logger": "api.routes",
        "label": "forest",
        "confidence": 0.93,
    }


def test_timestamp_is_utc(sink: Sink) -> None:
    """Timestamps are the current time in ISO 8601 and UTC."""
    structlog.get_logger().info("now")
    written = datetime.fromisoformat(sink.line()["timestamp"])
    assert written.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\u2028", "\x85", "\x0b"])
def test_no_line_injection(sink: Sink, newline: str) -> None:
    """A line break in an event, key or value does not start a new line."""
    forged = f'x{newline}{{"event": "login", "outcome": "ok"}}'
    structlog.get_logger().warning(forged, **{"name": forged, forged: 1})
    logging.getLogger("library").warning("%s", forged)
    lines = sink.lines()
    assert [line["event"] for line in lines] == [forged, forged]
    assert lines[0]["name"] == forged


def test_context_variables(sink: Sink) -> None:
    """Variables bound to the context are in every line, also in those of libraries."""
    with structlog.contextvars.bound_contextvars(request_id="r-1", principal="ana"):
        structlog.get_logger().info("ours")
        logging.getLogger("library").info("theirs")
    structlog.get_logger().info("after")
    assert [(line.get("request_id"), line.get("principal")) for line in sink.lines()] == [
        ("r-1", "ana"),
        ("r-1", "ana"),
        (None, None),
    ]


def test_secrets_are_masked(sink: Sink) -> None:
    """Credentials are masked by key and by pattern at every depth, in the event and in the context."""
    token, password = make_jwt(), secrets.token_urlsafe(12)
    with structlog.contextvars.bound_contextvars(principal=token):
        structlog.get_logger().info(
            f"refused {token}",
            password=password,
            headers={"Authorization": f"Bearer {token}", "accept": "*/*"},
            deep=[{"form": ({"client_secret": password}, f"password={password}")}],
        )
    line = sink.line()
    assert password not in sink.getvalue()
    assert not any(part in sink.getvalue() for part in token.split("."))
    assert line["event"] == "refused [redacted]"
    assert line["headers"] == {"Authorization": "[redacted]", "accept": "*/*"}


def test_exceptions_are_redacted_text(sink: Sink) -> None:
    """An exception is one text field with its stack and causes, without the credentials in its messages."""
    token = make_jwt()
    log = structlog.get_logger()
    try:
        try:
            raise KeyError(token)
        except KeyError as cause:
            raise ValueError("password=" + token[-20:]) from cause
    except ValueError:
        log.exception("request failed")
        logging.getLogger("library").exception("theirs failed too")
    assert not any(part in sink.getvalue() for part in (*token.split("."), token[-20:]))
    for line in sink.lines():
        assert line["level"] == "error"
        assert "KeyError" in line["exception"]
        assert "ValueError: password=[redacted]" in line["exception"]
        assert "test_logs.py" in line["exception"]


def test_objects_are_redacted_too(sink: Sink) -> None:
    """A value of a type unknown to JSON is written as its repr, which is redacted like any text."""
    token = make_jwt()
    structlog.get_logger().info("odd", error=RuntimeError(token), at=datetime(2026, 1, 2, tzinfo=UTC))
    assert sink.line()["error"] == "RuntimeError('[redacted]')"


def test_libraries_share_the_pipeline(sink: Sink) -> None:
    """Records of the standard library's loggers are written once, as JSON with their arguments formatted."""
    own = logging.StreamHandler(io.StringIO())
    logging.getLogger("uvicorn.access").addHandler(own)
    configure_logging("info", sink)
    logging.getLogger("uvicorn.access").info('%s - "%s %s" %d', "192.0.2.7", "GET", "/livez", 200)
    logging.getLogger("sqlalchemy.engine").warning("pool exhausted")
    assert [(line["logger"], line["level"], line["event"]) for line in sink.lines()] == [
        ("uvicorn.access", "info", '192.0.2.7 - "GET /livez" 200'),
        ("sqlalchemy.engine", "warning", "pool exhausted"),
    ]
    assert own.stream.getvalue() == ""


def test_warnings_are_logged(sink: Sink) -> None:
    """A Python warning is written as a line of the logger py.warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        configure_logging("info", sink)
        warnings.warn("old call", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    line = sink.line()
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "DeprecationWarning: old call" in line["event"]


def test_level(sink: Sink) -> None:
    """Lines below the level are not written, and a later configuration replaces an earlier one."""
    structlog.get_logger("atalaya.test").debug("hidden")
    logging.getLogger("library").debug("hidden")
    configure_logging("DEBUG", sink)
    structlog.get_logger("atalaya.test").debug("seen")
    logging.getLogger("library").info("seen")
    assert [line["event"] for line in sink.lines()] == ["seen", "seen"]


def test_unknown_level(sink: Sink) -> None:
    """An unknown level raises ValueError."""
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("loud", sink)


@pytest.mark.parametrize("library", ["aiosqlite", "sqlalchemy.engine", "httpcore.http11", "python_multipart.multipart"])
def test_libraries_never_log_at_debug(sink: Sink, library: str) -> None:
    """At the level debug, libraries still log from info on: below it they log parameters, forms and headers."""
    configure_logging("debug", sink)
    logging.getLogger(library).debug("executing INSERT … ['hash']")
    assert sink.lines() == []
