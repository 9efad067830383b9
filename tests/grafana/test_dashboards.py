"""The committed dashboards: how they are generated, laid out and provisioned, and how much they draw."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.rule_files import read_alerts
from tests.grafana.boards import FOLDER, NAMES, all_expressions, all_panels, read_dashboard, read_panels
from tests.grafana.promql import find_selectors, max_series
from tests.support.paths import ROOT

DRAWN = ("timeseries", "state-timeline", "heatmap")
MAX_SERIES = 12
# The most values that each label can have, because the code writes no others.
VALUES = {"stage": 4, "reason": 6, "outcome": 4, "origin": 3, "limit": 7, "store": 2, "job": 1, "le": 12}
VALUES |= {"database": 2, "window": 3, "certificate": 2, "correct": 2, "metric": 6, "direction": 2, "verdict": 3}
VALUES |= {"resource": 3}


def test_dashboards_are_generated(tmp_path: Path) -> None:
    """The committed dashboards are the output of grafana/dashboards.py, which writes nothing else."""
    subprocess.run([sys.executable, "grafana/dashboards.py", tmp_path], cwd=ROOT, check=True)
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{name}.json" for name in NAMES)
    for path in FOLDER.iterdir():
        assert path.read_text() == (tmp_path / path.name).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_uids_are_fixed(name: str) -> None:
    """Dashboards, data source and folder have fixed uids, and cannot be changed or deleted in Grafana."""
    assert read_dashboard(name)["uid"] == f"atalaya-{name}"
    (source,) = read_yaml("datasources/prometheus.yml")["datasources"]
    (provider,) = read_yaml("dashboards/atalaya.yml")["providers"]
    assert (source["uid"], source["editable"]) == ("prometheus", False)
    assert (provider["folderUid"], provider["allowUiUpdates"], provider["disableDeletion"]) == ("atalaya", False, True)


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / "grafana" / "provisioning" / path).read_text())


@pytest.mark.parametrize("name", NAMES)
def test_panel_titles_are_unique(name: str) -> None:
    """A dashboard has no two panels with the same title, because runbooks refer to panels by title."""
    titles = [panel["title"] for panel in read_panels(name)]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("title", "alert"),
    [
        ("Share of the memory limit", "AtalayaMemoryNearLimit"),
        ("CPU throttling", "AtalayaProcessorThrottled"),
        ("Refused and throttled logins, last 5 minutes", "AtalayaManyRefusedLogins"),
    ],
)
def test_threshold_lines_are_the_limits_of_alerts(title: str, alert: str) -> None:
    """The line in a panel is drawn at the value above which the alert on the same metric fires."""
    (panel,) = (panel for _, panel in all_panels() if panel["title"] == title)
    (rule,) = (rule for _, rule in read_alerts() if rule["alert"] == alert)
    _, drawn = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert drawn["value"] == float(rule["expr"].rpartition(" > ")[2])


def test_prediction_requests_are_posts() -> None:
    """Panels about prediction requests select POST: GET lists predictions on the same route."""
    selectors = [selector for expression in all_expressions() for selector in find_selectors(expression)]
    chosen = [each.matchers for each in selectors if "/v1/predictions" in each.matchers.get("http_route", ("", ""))[1]]
    assert len(chosen) >= 5
    assert all(matchers["http_request_method"] == ("=", "POST") for matchers in chosen)


def test_share_of_abstentions_is_that_of_the_alert() -> None:
    """The share of abstentions counts the same series as the alert: it never exceeds 1, even if they are rejected."""
    (panel,) = (panel for _, panel in all_panels() if panel["title"] == "Share of abstentions")
    (rule,) = (rule for _, rule in read_alerts() if rule["alert"] == "AtalayaAbstentionSurge")
    (target,) = panel["targets"]
    shown, alerted = (
        {(each.metric, each.matchers.get("stage")) for each in find_selectors(expression) if each.function == "rate"}
        for expression in (target["expr"], rule["expr"])
    )
    assert shown == alerted


@pytest.mark.parametrize("title", ["Failed, 5 min", "Share of requests that failed (5xx)"])
def test_shares_of_failures_leave_out_probes(title: str) -> None:
    """A share of failed requests counts no probes: most of them succeed, and would hide that all predictions fail."""
    (panel,) = (panel for _, panel in all_panels() if panel["title"] == title)
    (target,) = panel["targets"]
    counted = [each.matchers for each in find_selectors(target["expr"]) if each.metric.startswith("http_server")]
    assert {matchers.get("http_route") for matchers in counted} == {("!~", "/livez|/readyz|/metrics|/v2/health/.+")}


@pytest.mark.parametrize("name", NAMES)
def test_panels_fill_the_grid(name: str) -> None:
    """Panels fill the 24 columns without overlaps or gaps, and have unique ids."""
    shown = read_dashboard(name)["panels"]
    cells = [
        (x, y)
        for panel in shown
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    height = max(y for _, y in cells) + 1
    assert sorted(cells) == sorted(itertools.product(range(24), range(height)))
    assert len({panel["id"] for panel in shown}) == len(shown)


@pytest.mark.parametrize("name", NAMES)
def test_panels_draw_few_series(name: str) -> None:
    """A panel draws at most twelve series, however many instances, callers, routes or classes there are."""
    drawn = [panel for panel in read_panels(name) if panel["type"] in DRAWN]
    counts = {panel["title"]: sum(max_series(each["expr"], VALUES) for each in panel["targets"]) for panel in drawn}
    assert {title: count for title, count in counts.items() if count > MAX_SERIES} == {}


def test_ranking_is_fixed_over_the_time_range() -> None:
    """Series are ranked once for a time range, at its end: ranking at each step would draw more series in total."""
    for _, panel in all_panels():
        if panel["type"] in DRAWN:
            for target in panel["targets"]:
                assert target["expr"].count("topk(") == target["expr"].count("@ end()"), target["expr"]


def test_the_guide_names_existing_panels() -> None:
    """Each panel that the section on dashboards names in italics exists, and each dashboard has a picture."""
    section = (ROOT / "docs" / "operations.md").read_text().partition("\n## Dashboards\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", section)) - {"Atalaya", "i"}
    assert named
    assert named <= {panel["title"] for _, panel in all_panels()}
    assert set(re.findall(r"images/dashboard-(\w+)\.png", section)) == set(NAMES)


def test_selectors_are_found() -> None:
    """A selector has its matchers, its range and the function that the range is passed to; a bare name is rejected."""
    (selector,) = find_selectors('sum by (job) (rate(a_total{job=~"$job"}[5m])) or label_replace(0, "x", "y", "", "")')
    assert (selector.metric, selector.matchers, selector.range, selector.function) == (
        "a_total",
        {"job": ("=~", "$job")},
        "5m",
        "rate",
    )
    with pytest.raises(ValueError, match="bare"):
        find_selectors("sum(bare)")


def test_series_are_counted() -> None:
    """Series are bounded by topk, or by the values of the labels that they are grouped by."""
    assert max_series('x{} and on (a) topk(5, y{}) or label_replace(0, "a", "none", "", "")', {}) == 6
    assert max_series("sum by (a, b) (x{})", {"a": 2, "b": 3}) == 6
    assert max_series("sum(x{})", {}) == 1
    with pytest.raises(KeyError):
        max_series("sum by (caller) (x{})", {})
