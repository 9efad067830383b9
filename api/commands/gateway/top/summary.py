"""The numbers that `atalaya top` shows, as the document that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.commands.gateway.top.samples import ScrapeInterval
from api.http.addresses.host_names import PROBES

_UNCOUNTED = PROBES | {"/metrics"}  # probes and scrapes are not counted as requests
# From best to worst. They are repeated here because importing the gateway's packages would slow down the command.
QUEUE_STATES = ("normal", "shedding", "overload")
LEDGER_STATES = ("writing", "spooling", "full")
_DURATION = "http_server_request_duration_seconds"
_STAGES = ("decode", "queue", "infer", "commit")
_MAX_CLASSES = 5


def summarize(interval: ScrapeInterval) -> dict[str, Any]:
    """Return the numbers of an interval, with None for metrics that the gateway does not expose."""
    return {
        "seconds": round(interval.seconds, 3),
        "model": _find_model(interval),
        "uptime_s": _find_uptime(interval),
        "requests": _summarize_requests(interval),
        "predictions": _summarize_predictions(interval),
        "memory": _summarize_memory(interval),
        "queue": _summarize_queue(interval),
        "limits": {
            "rate_limited_per_s": interval.rates_by("atalaya_rate_limited_total", "limit"),
            "shed_per_s": interval.rates_by("atalaya_shed_total", "reason"),
            "store_up": interval.after.total("atalaya_limit_store_up"),
        },
        "records": {
            "ledger": interval.after.find_state("atalaya_ledger_state", LEDGER_STATES),
            "spooled": interval.after.total("atalaya_ledger_spooled_entries"),
            "audit_failures": interval.after.total("atalaya_audit_failures_total"),
            "log_lines_dropped": interval.after.total("atalaya_log_lines_dropped_total"),
        },
    }


def _find_model(interval: ScrapeInterval) -> str | None:
    for labels, value in interval.after.select("atalaya_model_info"):
        if value == 1:
            return f"{labels.get('model')}-v{labels.get('version')}"
    return None


def _find_uptime(interval: ScrapeInterval) -> float | None:
    """Return the uptime, assuming that the clocks of this machine and of the gateway agree."""
    start = interval.after.total("process_start_time_seconds")
    return None if start is None else max(0.0, interval.after.at_s - start)


def _summarize_requests(interval: ScrapeInterval) -> dict[str, Any]:
    classes: dict[str, float] = {}
    for labels, increase in interval.increases(f"{_DURATION}_count"):
        if labels.get("http_route") not in _UNCOUNTED:
            status = f"{labels.get('http_response_status_code', '')[:1]}xx"
            classes[status] = classes.get(status, 0.0) + increase / interval.seconds
    probes = {"http_route": _UNCOUNTED}
    return {
        "per_s": sum(classes.values()),
        "by_status_per_s": classes,
        "active": interval.after.total("http_server_active_requests"),
        "latency_s": {f"p{round(q * 100)}": interval.quantile(_DURATION, q, probes) for q in (0.5, 0.95, 0.99)},
    }


def _summarize_predictions(interval: ScrapeInterval) -> dict[str, Any]:
    labels = interval.rates_by("atalaya_predictions_total", "label")
    most = sorted(labels.items(), key=lambda item: -item[1])[:_MAX_CLASSES]
    return {
        "per_s": sum(labels.values()),
        "by_class_per_s": {label: rate for label, rate in most if rate},
        "abstentions_per_s": interval.rate("atalaya_abstentions_total"),
        "stage_mean_s": {stage: interval.mean("atalaya_prediction_stage_seconds", stage=stage) for stage in _STAGES},
    }


def _summarize_memory(interval: ScrapeInterval) -> Mapping[str, float | None]:
    after = interval.after
    used = after.total("atalaya_container_memory_working_set_bytes")
    return {
        "used_bytes": after.total("process_resident_memory_bytes") if used is None else used,
        "limit_bytes": after.total("atalaya_memory_limit_bytes"),
        "reserved_bytes": after.total("atalaya_memory_reserved_bytes"),
        "budget_bytes": after.total("atalaya_memory_budget_bytes"),
    }


def _summarize_queue(interval: ScrapeInterval) -> dict[str, Any]:
    return {
        "length": interval.after.total("atalaya_queue_length"),
        "capacity": interval.after.total("atalaya_queue_capacity"),
        "state": interval.after.find_state("atalaya_queue_state", QUEUE_STATES),
    }
