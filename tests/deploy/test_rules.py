"""The recording and alert rules for Prometheus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.metrics.catalogue import list_sample_names
from tests.deploy.conftest import Tool
from tests.deploy.rule_files import FILES, read_alerts, read_rules
from tests.support.paths import ROOT

TESTS = ROOT / "deploy" / "prometheus" / "tests"
ALWAYS_FIRING = {"AtalayaWatchdog"}
# One parameter for each alert, even where several have the same name.
ALERTS = [pytest.param(stem, rule, id=f"{rule['alert']}-{n}") for n, (stem, rule) in enumerate(read_alerts())]


def list_known_metrics() -> set[str]:
    """Return the names of the samples that the gateway exposes, and of those that Prometheus adds."""
    return list_sample_names() | {"up", "ALERTS"}


def read_cases() -> list[dict[str, Any]]:
    """Return the expectations for alerts in the tests for promtool."""
    return [
        case
        for path in TESTS.glob("*.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]


def test_there_are_alerts() -> None:
    """At least thirty alerts watch the gateway."""
    assert len({rule["alert"] for _, rule in read_alerts()}) >= 30


@pytest.mark.parametrize(("stem", "alert"), ALERTS)
def test_alerts_are_described(stem: str, alert: dict[str, Any]) -> None:
    """Each alert has a severity, a summary, a description, and the address of its section in the runbook."""
    assert alert["labels"]["severity"] in {"critical", "warning", "none"}
    assert (alert["labels"]["severity"] == "none") == (alert["alert"] in ALWAYS_FIRING)
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    section = f"/{stem}.md#{alert['alert'].lower()}"
    assert alert["annotations"]["runbook_url"] == "{{ $externalLabels.runbooks }}" + section


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rules_use_existing_metrics(path: Path) -> None:
    """Rules query only metrics that the gateway exposes, of its own job, and series that a rule records."""
    known = list_known_metrics()
    recorded = {rule["record"] for file in FILES for rule in read_rules(file) if "record" in rule}
    for rule in read_rules(path):
        selected = re.findall(r"(\w+){([^}]*)}", rule["expr"])
        assert {name for name, _ in selected} <= known, rule["expr"]
        assert all('job="atalaya"' in selectors for name, selectors in selected if name != "ALERTS"), rule["expr"]
        assert set(re.findall(r"atalaya:\w+:\w+", rule["expr"])) <= recorded, rule["expr"]


def test_prometheus_configuration(debian_tool: Tool) -> None:
    """promtool accepts the Prometheus configuration and all rules that it loads."""
    checked = debian_tool("promtool", "check", "config", "deploy/prometheus/prometheus.yml")
    counts = [int(count) for count in re.findall(r"(\d+) rules found", checked)]
    assert sum(counts) == sum(len(read_rules(path)) for path in FILES)


def test_alerts_are_tested_to_fire_and_to_stay_silent() -> None:
    """For every alert, the tests for promtool have a situation in which it fires and one in which it does not."""
    firing = {case["alertname"] for case in read_cases() if case["exp_alerts"]}
    silent = {case["alertname"] for case in read_cases() if not case["exp_alerts"]}
    alerts = {rule["alert"] for _, rule in read_alerts()}
    assert firing == alerts
    assert silent == alerts - ALWAYS_FIRING


def test_each_burn_rate_is_tested_to_fire_alone() -> None:
    """For each window of an objective, a test has it and the slower windows fire, but not the faster ones."""
    windows = ["1h", "6h", "1d", "3d"]
    for name in ("AtalayaAvailabilityBudgetBurning", "AtalayaLatencyBudgetBurning"):
        fired = [
            [alert["exp_labels"]["window"] for alert in case["exp_alerts"]]
            for case in read_cases()
            if case["alertname"] == name
        ]
        assert all(windows[start:] in fired for start in range(len(windows))), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path, debian_tool: Tool) -> None:
    """Every alert fires in its situations and stays silent in the others, as deploy/prometheus/tests describes."""
    debian_tool("promtool", "test", "rules", TESTS / path.name)
