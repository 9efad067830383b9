"""The formats of a log line."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from monitoring.logs.formats import LogFormat, make_render, name_attributes

EVENT = {
    "event": "request",
    "message": "POST /v1/predictions 503",
    "logger": "atalaya.access",
    "request_id": "r-1",
    "principal": "0198",
    "http.request.method": "POST",
    "http.route": "/v1/predictions",
    "http.response.status_code": 503,
    "duration_ms": 1.25,
    "code": "overloaded",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}
TIME = "2026-11-26T12:03:44.123456Z"


def render(log_format: str, event: dict[str, Any] = EVENT) -> str:
    return make_render(LogFormat(log_format))(name_attributes(event, "warning", TIME, is_own=True, service="atalaya"))


@pytest.mark.parametrize(
    ("log_format", "expected"),
    [
        (
            "otel",
            {
                "timestamp": TIME,
                "level": "warning",
                "message": "POST /v1/predictions 503",
                "service.name": "atalaya",
                "event.name": "request",
                "otel.scope.name": "atalaya.access",
                "request_id": "r-1",
                "user.id": "0198",
                "http.request.method": "POST",
                "http.route": "/v1/predictions",
                "http.response.status_code": 503,
                "duration_ms": 1.25,
                "error.type": "overloaded",
                "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            },
        ),
        (
            "ecs",
            {
                "@timestamp": TIME,
                "log.level": "warning",
                "message": "POST /v1/predictions 503",
                "ecs.version": "8.11.0",
                "service.name": "atalaya",
                "event.action": "request",
                "log.logger": "atalaya.access",
                "http.request.id": "r-1",
                "user.id": "0198",
                "http.request.method": "POST",
                "http.route": "/v1/predictions",
                "http.response.status_code": 503,
                "event.duration": 1_250_000,
                "error.code": "overloaded",
                "trace.id": "4bf92f3577b34da6a3ce929d0e0e4736",
            },
        ),
        (
            "datadog",
            {
                "timestamp": TIME,
                "status": "warning",
                "message": "POST /v1/predictions 503",
                "service": "atalaya",
                "evt.name": "request",
                "logger.name": "atalaya.access",
                "http.request_id": "r-1",
                "usr.id": "0198",
                "http.method": "POST",
                "http.route": "/v1/predictions",
                "http.status_code": 503,
                "duration": 1_250_000,
                "error.kind": "overloaded",
                "dd.trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            },
        ),
    ],
)
def test_json_forms_differ_in_their_names(log_format: str, expected: dict[str, object]) -> None:
    """Each JSON format names the fields as OpenTelemetry, Elastic Common Schema or Datadog defines them."""
    assert json.loads(render(log_format)) == expected


def test_logfmt_quotes_what_needs_it() -> None:
    """A value with spaces, quotes or line breaks is quoted, so that pairs can be told apart."""
    line = render(
        "logfmt", {"event": "x", "odd key=": 'a "b"\nc', "plain": "abc", "n": 3, "none": None, "list": [1, "b"]}
    )
    assert "\n" not in line
    pairs = dict(part.split("=", 1) for part in shlex.split(line))
    assert pairs["plain"] == "abc"
    assert pairs["odd_key_"] == r"a \"b\"\nc".replace(r"\"", '"')
    assert (pairs["n"], pairs["none"], pairs["level"]) == ("3", "null", "warning")


def test_console_begins_with_time_level_and_message() -> None:
    """A console line begins with the time of day, the level and the message, and does not repeat them."""
    line = render("console")
    assert line.startswith("12:03:44 WARNING POST /v1/predictions 503  request_id=r-1")
    assert line.count("/v1/predictions") == 1
    assert "duration_ms=1.25" in line


def test_console_shows_stack_traces_below_the_line() -> None:
    """A stack trace follows on indented lines, with control characters escaped."""
    line = render("console", {"event": "failed", "exception": "Traceback:\n  \x1b[2Jx"})
    assert line.splitlines() == ["12:03:44 WARNING failed", "    Traceback:", "      \\x1b[2Jx"]


@pytest.mark.parametrize("log_format", list(LogFormat))
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\u2028", "\x85", "\x0b"])
def test_no_form_lets_a_value_begin_a_line(log_format: LogFormat, newline: str) -> None:
    """A line break in a message, key or value does not begin a new line in any format."""
    forged = f"x{newline}forged"
    line = render(log_format, {"event": forged, "name": forged, forged: forged})
    assert len(line.splitlines()) == 1
