"""What `atalaya top` computes from two scrapes."""

from __future__ import annotations

import math
from enum import StrEnum

import pytest

from api.commands.gateway.top.samples import Scrape, ScrapeInterval, estimate_quantile
from api.commands.gateway.top.summary import summarize
from api.commands.gateway.top.view import render
from model.serving.overload_policy import LoadState
from monitoring.ledger.ledger import LedgerState

NOW = "2026-11-26T12:00:00.000000Z"
BEFORE = """
# TYPE atalaya_predictions_total counter
atalaya_predictions_total{model="m",label="forest"} 10
atalaya_predictions_total{model="m",label="river"} 5
"""
AFTER = """
# TYPE atalaya_predictions_total counter
atalaya_predictions_total{model="m",label="forest"} 30
atalaya_predictions_total{model="m",label="river"} 3
"""


def interval(before: str = BEFORE, after: str = AFTER, seconds: float = 2.0) -> ScrapeInterval:
    return ScrapeInterval(Scrape.parse(before, 100.0), Scrape.parse(after, 100.0 + seconds))


def test_a_counter_that_was_reset_began_at_zero() -> None:
    """A counter that has become smaller belongs to a restarted gateway, and is counted from zero."""
    assert interval().rates_by("atalaya_predictions_total", "label") == {"forest": 10.0, "river": 1.5}


def test_a_new_series_counts_from_zero() -> None:
    """A series that is missing in the first scrape is counted from zero."""
    assert interval(before="").rate("atalaya_predictions_total", label="forest") == 15.0


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [(0.25, 0.05), (0.5, 0.1), (0.75, 0.7), (0.99, 1.0)],
)
def test_quantiles_are_linear_in_a_bucket(quantile: float, expected: float) -> None:
    """A quantile is interpolated within its bucket, up to the last finite bound, as in Prometheus."""
    buckets = [(0.1, 4.0), (1.0, 7.0), (math.inf, 8.0)]
    assert estimate_quantile(buckets, quantile) == pytest.approx(expected)


def test_no_observation_has_no_quantile() -> None:
    """Without observations the quantile is unknown, not zero."""
    assert estimate_quantile([(0.1, 0.0), (math.inf, 0.0)], 0.5) is None


def test_what_a_gateway_does_not_expose_is_unknown() -> None:
    """A gateway without any metric still has a view, which shows dashes instead of zeros."""
    text = render({"gateway": "g", "at": NOW, **summarize(interval("", "")), "alerts": None})
    assert "2026-11-26 12:00:00 UTC, rates over" in text
    assert "ledger -, - spooled" in text
    assert "p50 -" in text


def test_the_view_obeys_no_label() -> None:
    """Control characters in a label are escaped, and long lines are cut at 80 columns."""
    after = f'atalaya_predictions_total{{model="m",label="\x1b[2J{"x" * 100}"}} 5\n'
    text = render({"gateway": "g", "at": NOW, **summarize(interval("", after)), "alerts": []})
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("metric", "states", "section", "name"),
    [("atalaya_queue_state", LoadState, "queue", "state"), ("atalaya_ledger_state", LedgerState, "records", "ledger")],
)
def test_the_worst_state_of_the_workers_is_shown(metric: str, states: type[StrEnum], section: str, name: str) -> None:
    """Of the states of several workers the worst is shown, in whatever order the scrape has them."""
    for worst in range(1, len(states) + 1):
        lines = [f'{metric}{{state="{state}"}} {int(n < worst)}\n' for n, state in enumerate(states)]
        for after in ("".join(lines), "".join(reversed(lines))):
            assert summarize(interval("", after))[section][name] == list(states)[worst - 1]
