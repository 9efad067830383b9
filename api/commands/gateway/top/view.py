"""The summary of `atalaya top` as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from api.commands.output import format_time
from monitoring.redaction import to_printable

WIDTH = 80
_LABEL_WIDTH = 13
_BAR_WIDTH = 20
_MEBIBYTE = 1 << 20
_MAX_ALERTS = 5
_UNKNOWN = "-"


def render(summary: Mapping[str, Any]) -> str:
    """Return the lines, none of them longer than WIDTH."""
    return "\n".join(_cut(to_printable(line)) for line in _lines(summary))


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    yield "  ".join([summary["gateway"], summary["model"] or "no model", f"up {_duration(summary['uptime_s'])}"])
    yield f"{format_time(datetime.fromisoformat(summary['at']))} UTC, rates over {summary['seconds']:.1f} s"
    yield ""
    yield from _section("Requests", [_describe_requests(summary["requests"])])
    latency = summary["requests"]["latency_s"]
    yield from _section("Latency", ["   ".join(f"{name} {_milliseconds(value)}" for name, value in latency.items())])
    yield from _section("Predictions", _describe_predictions(summary["predictions"]))
    yield from _section("Memory", _describe_memory(summary["memory"]))
    yield from _section("Queue", [_describe_queue(summary["queue"])])
    yield from _section("Limits", [_describe_limits(summary["limits"])])
    yield from _section("Records", [_describe_records(summary["records"])])
    yield from _section("Alerts", list(_describe_alerts(summary["alerts"])))


def _section(label: str, lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{label if number == 0 else '':{_LABEL_WIDTH}}{line}"


def _describe_requests(requests: Mapping[str, Any]) -> str:
    statuses = [f"{status} {rate:.1f}" for status, rate in sorted(requests["by_status_per_s"].items())]
    return "   ".join([_rate(requests["per_s"]), *statuses, f"active {_number(requests['active'])}"])


def _describe_predictions(predictions: Mapping[str, Any]) -> list[str]:
    classes = predictions["by_class_per_s"]
    widest = max(map(len, classes), default=0)
    highest = max(classes.values(), default=0)
    stages = "   ".join(f"{stage} {_milliseconds(mean)}" for stage, mean in predictions["stage_mean_s"].items())
    return [
        f"{_rate(predictions['per_s'])}   abstained {_rate(predictions['abstentions_per_s'])}",
        stages,
        *(f"{label:{widest}} {rate:7.1f}/s {_hashes(rate / highest)}" for label, rate in classes.items()),
    ]


def _describe_memory(memory: Mapping[str, float | None]) -> list[str]:
    return [
        f"{_bar(memory['used_bytes'], memory['limit_bytes'])} {_mebibytes(memory['used_bytes'])} of "
        f"{_mebibytes(memory['limit_bytes'])} MiB   reserved {_mebibytes(memory['reserved_bytes'])} of "
        f"{_mebibytes(memory['budget_bytes'])}"
    ]


def _describe_queue(queue: Mapping[str, Any]) -> str:
    state = queue["state"] or ""
    length, capacity = queue["length"], queue["capacity"]
    return f"{_bar(length, capacity)} {_number(length)} of {_number(capacity)}   {state}"


def _describe_limits(limits: Mapping[str, Any]) -> str:
    rejected = [f"{name} {rate:.1f}/s" for name, rate in limits["rate_limited_per_s"].items() if rate]
    shed = [f"{reason} {rate:.1f}/s" for reason, rate in limits["shed_per_s"].items() if rate]
    store = {None: "", 0.0: "   store unavailable"}.get(limits["store_up"], "   store up")
    return f"429: {', '.join(rejected) or 'none'}   503: {', '.join(shed) or 'none'}{store}"


def _describe_records(records: Mapping[str, Any]) -> str:
    ledger = f"ledger {records['ledger'] or _UNKNOWN}, {_number(records['spooled'])} spooled"
    dropped = f"log lines dropped {_number(records['log_lines_dropped'])}"
    return f"{ledger}   audit failures {_number(records['audit_failures'])}   {dropped}"


def _describe_alerts(alerts: Sequence[Mapping[str, str]] | None) -> Iterator[str]:
    if alerts is None:
        yield "not read; set --alerts-url to a Prometheus or Alertmanager server"
        return
    if not alerts:
        yield "none firing"
    for alert in alerts[:_MAX_ALERTS]:
        yield f"{alert['severity'] or 'firing'}  {alert['name']}: {alert['summary']}"
    if len(alerts) > _MAX_ALERTS:
        yield f"and {len(alerts) - _MAX_ALERTS} more"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _bar(value: float | None, limit: float | None) -> str:
    share = min(1.0, value / limit) if value is not None and limit else 0.0
    return f"[{_hashes(share):-<{_BAR_WIDTH}}]"


def _hashes(share: float) -> str:
    return "#" * round(_BAR_WIDTH * share)


def _rate(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1f}/s"


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.0f}"


def _mebibytes(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value / _MEBIBYTE:.0f}"


def _milliseconds(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else f"{seconds * 1000:.{0 if seconds >= 0.1 else 1}f} ms"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86_400
    if days >= 2:
        return f"{days:.0f} days"
    return f"{hours:.0f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
