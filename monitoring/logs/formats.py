"""The formats of a log line. The keys of an event are OpenTelemetry's attribute names; ECS and Datadog rename them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum

from monitoring.redaction import to_printable

Event = Mapping[str, object]
Render = Callable[[Event], str]


# OpenTelemetry's names for attributes that structlog or this project's code names differently.
_ATTRIBUTES = {
    "code": "error.type",
    "exception": "exception.stacktrace",
    "logger": "otel.scope.name",
    "principal": "user.id",
    "stack": "code.stacktrace",
}
_DURATION = "duration_ms"
_NS_PER_MS = 1_000_000


class LogFormat(StrEnum):
    OTEL = "otel"
    ECS = "ecs"
    DATADOG = "datadog"
    LOGFMT = "logfmt"
    CONSOLE = "console"

    @property
    def is_json(self) -> bool:
        return self not in (LogFormat.LOGFMT, LogFormat.CONSOLE)


# Elastic Common Schema 8, and Datadog's standard attributes. Keys that are missing here are not renamed.
_ECS = {
    "timestamp": "@timestamp",
    "level": "log.level",
    "event.name": "event.action",
    "otel.scope.name": "log.logger",
    "request_id": "http.request.id",
    "error.type": "error.code",
    "exception.stacktrace": "error.stack_trace",
    "trace_id": "trace.id",
    "span_id": "span.id",
    _DURATION: "event.duration",
}
_DATADOG = {
    "level": "status",
    "service.name": "service",
    "event.name": "evt.name",
    "otel.scope.name": "logger.name",
    "request_id": "http.request_id",
    "http.request.method": "http.method",
    "http.response.status_code": "http.status_code",
    "user.id": "usr.id",
    "error.type": "error.kind",
    "exception.stacktrace": "error.stack",
    "trace_id": "dd.trace_id",
    "span_id": "dd.span_id",
    _DURATION: "duration",
}

# The console shows these at the beginning of the line, or omits them.
_IN_CONSOLE_HEAD = frozenset(
    {
        "timestamp",
        "level",
        "message",
        "service.name",
        "event.name",
        "otel.scope.name",
        "http.request.method",
        "http.route",
        "http.response.status_code",
    }
)
_TRACES = ("exception.stacktrace", "code.stacktrace")
_BARE = re.compile(r"[^\s\"=\\]+")
_UNSAFE_IN_KEY = re.compile(r"[^\w.@/-]")

_encode = json.JSONEncoder().encode  # json.dumps would create an encoder for every line


def name_attributes(
    event: Mapping[str, object], level: str, timestamp: str, *, is_own: bool, service: str
) -> dict[str, object]:
    """Return structlog's event with OpenTelemetry's names, the most important ones first.

    An event of this project's code has its name in `event.name`; its message is that name in words, unless the event
    contains a `message`. A line of a library has only a message.
    """
    name = str(event["event"])
    line: dict[str, object] = {"timestamp": timestamp, "level": level, "message": name, "service.name": service}
    if is_own:
        line["message"] = name.replace("_", " ")
        line["event.name"] = name
    for key, value in event.items():
        if key != "event":
            line[_ATTRIBUTES.get(key, key)] = value
    return line


def make_render(log_format: LogFormat) -> Render:
    """Return the function that renders an event with OpenTelemetry's names, without a line feed at the end.

    All formats but CONSOLE, which adds the lines of stack traces, render one line.
    """
    match log_format:
        case LogFormat.OTEL:
            return _encode
        case LogFormat.ECS:
            return lambda event: _encode({"ecs.version": "8.11.0", **_rename(event, _ECS)})
        case LogFormat.DATADOG:
            return lambda event: _encode(_rename(event, _DATADOG))
        case LogFormat.LOGFMT:
            return lambda event: " ".join(map(_render_pair, event.items()))
        case LogFormat.CONSOLE:
            return _render_for_console


def _rename(event: Event, names: Mapping[str, str]) -> dict[str, object]:
    """Return the event with other names, and with its duration in nanoseconds, as both schemas require."""
    renamed = {names.get(key, key): value for key, value in event.items()}
    duration = event.get(_DURATION)
    if isinstance(duration, int | float):
        renamed[names[_DURATION]] = round(duration * _NS_PER_MS)
    return renamed


def _render_pair(item: tuple[str, object]) -> str:
    key, value = item
    text = value if isinstance(value, str) else _encode(value)
    bare = _BARE.fullmatch(text) is not None and text.isprintable()
    return f"{_UNSAFE_IN_KEY.sub('_', key)}={text if bare else _encode(text)}"


def _render_for_console(event: Event) -> str:
    """Return time of day in UTC, level, message and other attributes; stack traces follow on lines of their own."""
    clock = str(event["timestamp"])[11:19]
    pairs = [_render_pair(item) for item in event.items() if item[0] not in (*_IN_CONSOLE_HEAD, *_TRACES)]
    head = f"{clock} {str(event['level']).upper():7} {to_printable(str(event['message']))}"
    traces = [_indent(str(event[key])) for key in _TRACES if key in event]
    return "\n".join(["  ".join([head, " ".join(pairs)]).rstrip(), *traces])


def _indent(trace: str) -> str:
    return "\n".join(f"    {to_printable(line)}" for line in trace.split("\n"))
