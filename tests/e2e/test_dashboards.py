"""The queries of the Grafana dashboards, in a real Prometheus that scrapes a gateway under mixed traffic."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.grafana.boards import Window, all_panels
from tests.grafana.prometheus import Prometheus, running_prometheus
from tests.support import redis
from tests.support.gateway import TIMEOUT_S, Gateway, make_gateway
from tests.support.paths import FOREST, NVML
from tests.support.polling import wait_until
from tests.support.requirements import missing

pytestmark = pytest.mark.long
PATIENCE_S = 600
RATE_INTERVAL_S = 10
MAX_SERIES = 12
# Queries that are expected to be empty here, with the reason.
RIGHTLY_EMPTY = {
    ("Alerts that fire", "A"): "nothing is wrong",
    ("Dependencies", "C"): "no identity provider is configured",
    ("CPU throttling", "A"): "no processor quota applies to the tests",
    ("Time since scheduled commands ran", "B"): "no scheduled command has failed",
    ("Time until certificates expire", "A"): "the gateway has no TLS certificate",
    ("Aliases", "A"): "the gateway has no registry",
    ("Comparisons that the candidate lost", "A"): "no candidate is compared",
    ("Evidence on the candidate", "A"): "no candidate is compared",
    ("Accuracy on the validation set", "A"): "no evaluation has run",
    ("Accuracy on the validation set", "B"): "no evaluation has run",
    ("Callers that differ", "A"): "the stub has no reference for drift",
    ("Recent predictions compared with the reference", "A"): "the stub has no reference for drift",
}
# Whether the container of the tests has a control group, and whether requests are too slow, depends on the machine.
EMPTY_ON_SOME_MACHINES = {("Memory and its limit", "C"), ("CPU throttling", "A"), ("Alerts that fire", "A")}
# Panels that are expected to show 0 for a gateway that is down, because they show whether it is up.
SHOW_WHETHER_UP = {"Service status", "Instances up"}

Query = tuple[str, str]
"""The title of a panel and the name of its query."""


@dataclass
class Observed:
    """What the dashboards showed during traffic, and after the gateway was killed."""

    empty: set[Query] = field(default_factory=set)
    series: dict[str, int] = field(default_factory=dict)
    zeros_after_death: set[Query] = field(default_factory=set)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a model that sometimes abstains, a low rate limit in Redis, and two simulated GPUs."""
    folder = tmp_path_factory.mktemp("gateway")
    try:
        with redis.running(folder) as server:
            gateway = make_gateway(
                folder,
                MODEL__URL="stub://?min_confidence=0.9",
                REDIS_URL=server.url,
                LIMITS__PREDICT="100/minute",
                PYTHONPATH=str(NVML),
            )
            gateway.start()
            gateway.run("ledger", "verify")  # a scheduled command
            yield gateway
            if gateway.is_running:
                gateway.stop()
    except LookupError as error:
        missing(str(error))


@pytest.fixture(scope="module")
def observed(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Send requests until every query that can have data has some, then kill the gateway."""
    found, started = Observed(), time.time()
    queries = {(each["title"], query["refId"]): query["expr"] for _, each in all_panels() for query in each["targets"]}
    with running_prometheus(tmp_path_factory.mktemp("prometheus") / "data", gateway.metrics_url) as prometheus:
        found.empty = set(queries)
        send = send_mixed_requests(gateway)
        while is_incomplete(prometheus, found.empty) and time.time() - started < PATIENCE_S:
            next(send)
            found.empty = {query for query in found.empty if not prometheus.query(fill_in(queries[query]))}
        window = Window(started, time.time(), 1, RATE_INTERVAL_S)
        for title, panel in ((panel["title"], panel) for _, panel in all_panels() if panel["type"] != "table"):
            found.series[title] = count_series(prometheus, panel, window)
        gateway.kill()
        wait_until(
            lambda: prometheus.query("atalaya:status == 0") and not prometheus.query("atalaya:service:burn_rate")
        )
        # Later than the widest rate interval, so that the interval contains no samples of the gateway.
        later = time.time() + 2 * RATE_INTERVAL_S
        for query, expression in queries.items():
            if any(series.last == 0 for series in prometheus.query(fill_in(expression), later)):
                found.zeros_after_death.add(query)
    return found


def is_incomplete(prometheus: Prometheus, empty: set[Query]) -> bool:
    """Return whether a query still lacks data, or too few classes were predicted more than once."""
    classes = prometheus.query("count by (label) (increase(atalaya_predictions_total[5m]) > 0)")
    return bool(empty - RIGHTLY_EMPTY.keys() - EMPTY_ON_SOME_MACHINES) or len(classes) <= MAX_SERIES


def fill_in(expression: str) -> str:
    now = time.time()
    return Window(now - 60, now, 1, RATE_INTERVAL_S).fill_in(expression)


def count_series(prometheus: Prometheus, panel: dict[str, Any], window: Window) -> int:
    return sum(len(prometheus.query_range(window.fill_in(target["expr"]), window)) for target in panel["targets"])


def send_mixed_requests(gateway: Gateway) -> Iterator[None]:
    """Send, at each step, predictions of varied images, and requests that are rejected for various reasons."""
    random = np.random.default_rng(1)
    with httpx.Client(base_url=gateway.base_url, auth=gateway.fresh_token(), timeout=TIMEOUT_S) as client:
        for step in itertools.count():
            for _ in range(4):
                image = io.BytesIO()
                blocks = (random.random((8, 8, 3)) < 0.1).astype(np.uint8) * 255  # of many classes for the stub
                Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST).save(image, "png")
                response = client.post("/v1/predictions", files={"file": image.getvalue()})
                if response.is_success:  # else 429: over the limit
                    label = {"label": response.json()["label"]}
                    client.post(f"/v1/predictions/{response.json()['id']}/label", json=label)
            client.post("/predict-land-use", files={"file": FOREST.read_bytes()})
            client.post("/v1/predictions", files={"file": b"no image"})
            client.get("/v1/usage")
            client.get(f"/v1/predictions/{step}")
            client.get("/v1/users")  # 403
            gateway.get("/v1/me")  # 401
            gateway.get("/v1/me", headers={"Authorization": "Bearer x"})
            gateway.get("/nowhere")
            gateway.log_in("olga", "wrong horse battery")  # not ana, whose token must be renewed on a slow machine
            yield


def test_each_query_returns_data(observed: Observed) -> None:
    """Every query of the dashboards returns data during traffic, except those that are expected to be empty."""
    assert observed.empty ^ RIGHTLY_EMPTY.keys() <= EMPTY_ON_SOME_MACHINES


def test_no_panel_draws_more_than_twelve_series(observed: Observed) -> None:
    """A panel draws at most twelve series, even when the stub predicts more than twelve classes."""
    assert observed.series["Predictions by class"] == MAX_SERIES
    assert {title: count for title, count in observed.series.items() if count > MAX_SERIES} == {}


def test_a_dead_gateway_never_reads_as_0(observed: Observed) -> None:
    """When the gateway is down, only the queries that show whether it is up return 0."""
    assert {title for title, _ in observed.zeros_after_death} <= SHOW_WHETHER_UP
    assert observed.zeros_after_death
