"""The fields of log lines, and the masking of secrets in them."""

from __future__ import annotations

import io
import logging
import re
import secrets
import warnings
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import pytest
import structlog
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from tests.monitoring.jwts import make_jwt
from tests.monitoring.logs.sink import Sink
from tests.support.logs import configure_test_logging


def test_fields(sink: Sink) -> None:
    """A line is a JSON object with OpenTelemetry's field names, a readable message and the given values."""
    structlog.get_logger("api.routes").info("model_loaded", label="forest", confidence=0.93)
    line = sink.line()
    assert list(line)[:3] == ["timestamp", "level", "message"]
    assert line | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "message": "model loaded",
        "service.name": "atalaya",
        "event.name": "model_loaded",
        "otel.scope.name": "api.routes",
        "label": "forest",
        "confidence": 0.93,
    }


def test_timestamp_is_utc(sink: Sink) -> None:
    """Timestamps are the current time in ISO 8601 and UTC."""
    before = datetime.now(UTC)
    structlog.get_logger().info("now")
    written = datetime.fromisoformat(sink.line()["timestamp"])
    assert written.utcoffset() == timedelta(0)
    assert before <= written <= datetime.now(UTC)


class OnTheSecond(datetime):
    """A clock that shows no microseconds."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz).replace(microsecond=0)


def test_timestamps_have_a_fraction(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timestamps have six decimal places even at a full second, because collectors expect one format."""
    monkeypatch.setattr("monitoring.logs.configuration.datetime", OnTheSecond)
    structlog.get_logger().info("now")
    assert re.fullmatch(r"[-\d]+T[:\d]+\.000000Z", sink.line()["timestamp"])


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\u2028", "\x85", "\x0b"])
def test_no_line_injection(sink: Sink, newline: str) -> None:
    """A line break in an event, key or value does not start a new line."""
    forged = f'x{newline}{{"event": "login", "outcome": "ok"}}'
    structlog.get_logger().warning(forged, **{"name": forged, forged: 1})
    logging.getLogger("library").warning("%s", forged)
    lines = sink.lines()
    assert [line["message"] for line in lines] == [forged, forged]
    assert lines[0]["name"] == forged


def test_context_variables(sink: Sink) -> None:
    """Variables bound to the context are in every line, including those of libraries."""
    with structlog.contextvars.bound_contextvars(request_id="r-1", principal="ana"):
        structlog.get_logger().info("ours")
        logging.getLogger("library").info("theirs")
    structlog.get_logger().info("after")
    assert [(line.get("request_id"), line.get("user.id")) for line in sink.lines()] == [
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
    assert line["message"] == line["event.name"] == "refused [redacted]"
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
        assert "KeyError" in line["exception.stacktrace"]
        assert "ValueError: password=[redacted]" in line["exception.stacktrace"]
        assert "test_lines.py" in line["exception.stacktrace"]


def test_objects_are_redacted_too(sink: Sink) -> None:
    """A value of a type unknown to JSON is written as its repr, which is redacted like any text."""
    token = make_jwt()
    structlog.get_logger().info("odd", error=RuntimeError(token), at=datetime(2026, 1, 2, tzinfo=UTC))
    assert sink.line()["error"] == "RuntimeError('[redacted]')"


def test_libraries_share_the_pipeline(sink: Sink) -> None:
    """Records of the standard library's loggers are written once, as JSON with their arguments formatted."""
    own = logging.StreamHandler(io.StringIO())
    logging.getLogger("uvicorn.access").addHandler(own)
    configure_test_logging("info", sink)
    logging.getLogger("uvicorn.access").info('%s - "%s %s" %d', "192.0.2.7", "GET", "/livez", 200)
    logging.getLogger("sqlalchemy.engine").warning("pool exhausted")
    assert [(line["otel.scope.name"], line["level"], line["message"]) for line in sink.lines()] == [
        ("uvicorn.access", "info", '192.0.2.7 - "GET /livez" 200'),
        ("sqlalchemy.engine", "warning", "pool exhausted"),
    ]
    assert own.stream.getvalue() == ""


def test_warnings_are_logged(sink: Sink) -> None:
    """A Python warning is written as a line of the logger py.warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        configure_test_logging("info", sink)
        warnings.warn("old call", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    line = sink.line()
    assert (line["otel.scope.name"], line["level"]) == ("py.warnings", "warning")
    assert "DeprecationWarning: old call" in line["message"]


def test_level(sink: Sink) -> None:
    """Lines below the level are not written, and a later configuration replaces an earlier one."""
    structlog.get_logger("atalaya.test").debug("hidden")
    logging.getLogger("library").debug("hidden")
    configure_test_logging("DEBUG", sink)
    structlog.get_logger("atalaya.test").debug("seen")
    logging.getLogger("library").info("seen")
    assert [line["message"] for line in sink.lines()] == ["seen", "seen"]


def test_unknown_level(sink: Sink) -> None:
    """An unknown level raises ValueError."""
    with pytest.raises(ValueError, match="LOUD"):
        configure_test_logging("loud", sink)


@pytest.mark.parametrize("library", ["aiosqlite", "sqlalchemy.engine", "httpcore.http11", "python_multipart.multipart"])
def test_libraries_never_log_at_debug(sink: Sink, library: str) -> None:
    """At level debug, libraries' debug messages are not logged: they contain parameters, forms and headers."""
    configure_test_logging("debug", sink)
    logging.getLogger(library).debug("executing INSERT … ['hash']")
    assert sink.lines() == []


def test_library_messages_have_no_event_name(sink: Sink) -> None:
    """A library's message has no event name, unlike the events of this project."""
    logging.getLogger("library").warning("something_odd")
    line = sink.line()
    assert line["message"] == "something_odd"
    assert "event.name" not in line


def test_an_event_may_have_a_message_of_its_own(sink: Sink) -> None:
    """An event with a message of its own is logged with it, instead of one derived from the event's name."""
    structlog.get_logger().info("request", message="GET /v1/me 200")
    assert (sink.line()["message"], sink.line()["event.name"]) == ("GET /v1/me 200", "request")


def test_requests_of_the_http_client_are_not_logged(sink: Sink) -> None:
    """httpx's line for each request, whose URL may contain a key, is not written."""
    logging.getLogger("httpx").info("HTTP Request: POST https://logs.example.org?key=hush")
    assert sink.lines() == []


def test_malformed_forms_are_not_logged(sink: Sink) -> None:
    """python_multipart's warnings of malformed forms, which callers can cause at any rate, are not written."""
    with pytest.raises(FormParserError):
        MultipartParser(b"boundary").write(b"no boundary")
    logging.getLogger("python_multipart.multipart").error("a fault of the library")
    assert sink.line()["message"] == "a fault of the library"
