"""Sampling the log lines of rejected requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from monitoring.logs.sampling import REPORT_AFTER_S, RefusalSampler

RAILWAY_LINES_PER_S = 500


class Clock:
    """A clock and a timer that a test advances."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        self.due.append((self.now + seconds, callback))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for at, callback in self.due if at <= self.now]
        self.due = [(at, callback) for at, callback in self.due if at > self.now]
        for callback in due:
            callback()


class Log:
    """Keeps the lines that pass a sampler, with the second in which each passed."""

    def __init__(self, limit: int) -> None:
        self.clock = Clock()
        self.passed: list[tuple[int, dict[str, Any]]] = []
        self.sampler = RefusalSampler(limit, self.clock.call_later, lambda: self.clock.now)
        structlog.configure(processors=[self.sampler, self._keep], cache_logger_on_first_use=False)

    def _keep(self, _logger: object, _method: str, event: Any) -> Any:
        self.passed.append((int(self.clock.now), event))
        raise structlog.DropEvent

    def request(self, status: int, route: str = "/v1/me", code: str = "invalid_token") -> None:
        more = {"code": code} if status >= 400 else {}
        fields = {"http.route": route, "http.response.status_code": status, **more}
        structlog.get_logger("atalaya.access").info("request", **fields)

    def named(self, event: str) -> list[dict[str, Any]]:
        return [line for _, line in self.passed if line["event"] == event]


@pytest.fixture
def log() -> Log:
    return Log(limit=100)


@pytest.fixture(autouse=True)
def _restore() -> Any:
    yield
    structlog.reset_defaults()


def test_many_rejections_stay_under_the_limit_of_platforms(log: Log) -> None:
    """At 2,000 rejections per second, fewer than 500 lines per second are logged, and the counts add up."""
    for number in range(20_000):
        log.request((401, 404, 429)[number % 3], code=("invalid_token", "not_found", "rate_limited")[number % 3])
        if number % 50 == 0:
            log.request(200)
        log.clock.advance(1 / 2000)
    log.clock.advance(REPORT_AFTER_S)
    lines_per_s = Counter(second for second, _ in log.passed)
    assert max(lines_per_s.values()) < RAILWAY_LINES_PER_S
    refused = [line for line in log.named("request") if line["http.response.status_code"] >= 400]
    assert len(refused) + sum(line["count"] for line in log.named("refusals_not_logged")) == 20_000
    assert len(log.named("request")) - len(refused) == 400  # every successful request has its line


def test_few_rejections_are_all_logged(log: Log) -> None:
    """Up to the limit per second, every rejected request has its own line."""
    for _ in range(5):
        for _ in range(100):
            log.request(404)
        log.clock.advance(1)
    assert len(log.named("request")) == 500
    assert log.named("refusals_not_logged") == []


def test_the_report_names_the_most_frequent_kinds(log: Log) -> None:
    """A second after the first rejection without a line, one line reports their number by route, status and code."""
    for _ in range(100):
        log.request(404)
    for number in range(30):
        log.request(429 if number % 3 else 401, code="rate_limited" if number % 3 else "invalid_token")
    for number in range(40):
        log.request(404, route=f"/{number}")
    assert log.named("refusals_not_logged") == []
    log.clock.advance(REPORT_AFTER_S)
    (report,) = log.named("refusals_not_logged")
    assert report["count"] == 70
    assert len(report["most"]) == 10
    assert report["most"][0] == {
        "http.route": "/v1/me",
        "http.response.status_code": 429,
        "error.type": "rate_limited",
        "count": 20,
    }


def test_refused_connections_count_as_refusals(log: Log) -> None:
    """Refused connections are sampled like refused requests."""
    for _ in range(150):
        structlog.get_logger("atalaya.access").info("connection_refused", code="too_many_connections")
    assert len(log.named("connection_refused")) == 100


def test_other_events_are_never_sampled(log: Log) -> None:
    """However many requests are rejected, every successful request and every other event has its line."""
    for _ in range(300):
        log.request(503)
        log.request(200)
        structlog.get_logger("atalaya.workers").error("worker_died", exit_status=-9)
    assert len(log.named("worker_died")) == 300
    assert len(log.named("request")) == 400
