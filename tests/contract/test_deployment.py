from __future__ import annotations

import ipaddress
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from monitoring.metrics import Metrics
from tests.support.paths import BIN, ROOT

DASHBOARDS = ("latency.json", "resources.json")
Tool = Callable[[str], str]


def run(*command: str | Path) -> str:
    """The output of a command in the project's root. A command that fails makes the test fail with its output."""
    process = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_yaml("docker-compose.yml")["services"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for group in read_yaml("deploy/prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def panels(dashboard: str) -> list[dict[str, Any]]:
    dashboard_json = json.loads((ROOT / "grafana/dashboards" / dashboard).read_text())
    return [panel for panel in dashboard_json["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Every PromQL expression of both dashboards and of the alerts."""
    for panel in itertools.chain(*map(panels, DASHBOARDS)):
        yield from (target["expr"] for target in panel["targets"])
    yield from (alert["expr"] for alert in alerts())


def test_compose_file_is_valid() -> None:
    """The Compose file follows the Compose specification's schema."""
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_published_ports() -> None:
    """Only the gateway and Grafana are published, on loopback; the metrics port and the database are not."""
    assert {name: service["ports"] for name, service in services().items() if "ports" in service} == {
        "gateway": ["127.0.0.1:8000:8000"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_internal_services_have_no_outside_network() -> None:
    """The database and Prometheus are on internal networks only, and on different ones."""
    networks = read_yaml("docker-compose.yml")["networks"]
    internal = {name: set(services()[name]["networks"]) for name in ("postgres", "prometheus")}
    assert all(networks[network]["internal"] for network in set.union(*internal.values()))
    assert internal["postgres"].isdisjoint(internal["prometheus"])


def test_requests_of_a_host_proxy_have_a_fixed_address() -> None:
    """The gateway's only network to the outside is fixed, and the guide names the host's address in it."""
    networks = read_yaml("docker-compose.yml")["networks"]
    outside = [name for name in services()["gateway"]["networks"] if not networks[name].get("internal")]
    (network,) = networks["front"]["ipam"]["config"]
    assert outside == ["front"]
    assert ipaddress.ip_address(network["gateway"]) in ipaddress.ip_network(network["subnet"])
    assert f"LIMITS__TRUSTED_PROXIES={network['gateway']}" in (ROOT / "docs/deployment.md").read_text()


def test_gateway_limits() -> None:
    """The gateway gets two cores and 512 MiB of memory, including swap."""
    gateway = services()["gateway"]
    assert (gateway["cpus"], gateway["mem_limit"], gateway["memswap_limit"]) == (2, "512m", "512m")


@pytest.mark.parametrize("name", ["gateway", "postgres", "prometheus", "alertmanager", "grafana"])
def test_services_are_hardened(name: str) -> None:
    """Each service has a read-only root, no capabilities, no new privileges, a memory limit, a pinned image."""
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert re.search(r":v?\d+\.\d+", service["image"])


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "GRAFANA_ADMIN_PASSWORD"])
def test_passwords_have_no_default(name: str) -> None:
    """Compose refuses to start while a password is missing."""
    uses = re.findall(rf"\${{{name}(.)(.)", (ROOT / "docker-compose.yml").read_text())
    assert uses
    assert set(uses) == {(":", "?")}


def test_dockerfile_lints() -> None:
    """hadolint finds no fault in the Dockerfile."""
    assert run(BIN / "hadolint", "Dockerfile") == ""


def test_image_runs_unprivileged() -> None:
    """The image runs as a fixed user other than root, and installs dependencies by hash only."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile, re.MULTILINE)
    assert int(user) >= 1000
    assert "--require-hashes" in dockerfile


def test_dashboards_are_generated(tmp_path: Path) -> None:
    """The committed dashboards are the output of grafana/dashboards.py."""
    run(sys.executable, "grafana/dashboards.py", tmp_path)
    for name in DASHBOARDS:
        assert (ROOT / "grafana/dashboards" / name).read_text() == (tmp_path / name).read_text()


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_panels_are_described(dashboard: str) -> None:
    """Each panel has a unique title, a description and a unit, and queries the provisioned data source."""
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    shown = panels(dashboard)
    assert len({panel["title"] for panel in shown}) == len(shown)
    for panel in shown:
        assert panel["description"].endswith((".", "?"))
        assert panel["fieldConfig"]["defaults"]["unit"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {(entry["type"], entry["uid"]) for entry in sources} == {(source["type"], source["uid"])}


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_panels_fill_the_grid(dashboard: str) -> None:
    """Panels fill the 24 columns without overlaps or gaps, and have unique ids."""
    shown = json.loads((ROOT / "grafana/dashboards" / dashboard).read_text())["panels"]
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


def test_queries_use_existing_metrics() -> None:
    """Dashboards and alerts query metrics that the gateway exposes, and only those of its own job."""
    registry = CollectorRegistry()
    Metrics(registry)
    exposed = {"up"}
    for family in registry.collect():
        suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}.get(family.type, ("",))
        exposed |= {family.name + suffix for suffix in suffixes}
    for expression in expressions():
        selected = re.findall(r"(\w+){([^}]*)}", expression)
        assert selected
        assert {name for name, _ in selected} <= exposed, expression
        assert all('job="atalaya"' in selectors for _, selectors in selected), expression


def test_scraping_matches_the_compose_file() -> None:
    """Prometheus scrapes the gateway's metrics port under the job name that dashboards and alerts select."""
    config = read_yaml("deploy/prometheus/prometheus.yml")
    (job,) = config["scrape_configs"]
    port = services()["gateway"]["environment"]["METRICS_PORT"]
    assert (job["job_name"], job["static_configs"]) == ("atalaya", [{"targets": [f"gateway:{port}"]}])
    assert config["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]


def test_grafana_matches_the_compose_file() -> None:
    """Grafana reads provisioning and dashboards from where Compose mounts them, and has the scrape interval."""
    (provider,) = read_yaml("grafana/provisioning/dashboards/atalaya.yml")["providers"]
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    mounts = dict(volume.split(":")[:2] for volume in services()["grafana"]["volumes"])
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    scrape_interval = read_yaml("deploy/prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape_interval


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_alerts_are_described(alert: dict[str, Any]) -> None:
    """Each alert has a severity, a summary, a description, and a section in the runbook."""
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert alert["alert"] in headings
    assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_runbook_sections_are_complete(alert: dict[str, Any]) -> None:
    """Each alert's section says what it means, what to run first, what to do, and when to call somebody else."""
    text = (ROOT / "docs/runbook.md").read_text()
    section = text.partition(f"\n## {alert['alert']}\n")[2].partition("\n## ")[0]
    parts = re.split(r"^\*\*(Meaning:|Check first:|Actions:|Escalate)\*\*", section, flags=re.MULTILINE)
    assert parts[1::2] == ["Meaning:", "Check first:", "Actions:", "Escalate"]
    meaning, check, actions, escalate = parts[2::2]
    assert all(part.strip() for part in (meaning, actions, escalate))
    assert re.search(r"`(docker|curl) [^`]+`", check), "no command to paste"


def test_runbook_names_existing_panels() -> None:
    """Each panel and dashboard that the runbook names exists."""
    dashboards = [json.loads((ROOT / "grafana/dashboards" / name).read_text())["title"] for name in DASHBOARDS]
    titles = {panel["title"] for panel in itertools.chain(*map(panels, DASHBOARDS))}
    prose = re.sub(r"`[^`]*`|\*\*", "", (ROOT / "docs/runbook.md").read_text())
    named = set(re.findall(r"(?<![*\w])\*([A-Z][^*\n]+)\*", prose))
    assert sorted(named - titles - set(dashboards)) == []
    assert named


def test_prometheus_configuration(debian_tool: Tool) -> None:
    """promtool accepts the Prometheus configuration and the alert rules that it loads."""
    checked = run(debian_tool("promtool"), "check", "config", "deploy/prometheus/prometheus.yml")
    assert f"{len(alerts())} rules found" in checked


def test_alerts_fire_when_they_should(debian_tool: Tool) -> None:
    """Every alert fires in its situation and stays silent otherwise, as alerts_test.yml describes."""
    tested = {
        case["alertname"]
        for test in read_yaml("deploy/prometheus/alerts_test.yml")["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tested == {alert["alert"] for alert in alerts()}
    run(debian_tool("promtool"), "test", "rules", "deploy/prometheus/alerts_test.yml")


def test_alertmanager_configuration(debian_tool: Tool) -> None:
    """amtool accepts the Alertmanager configuration, which has one receiver."""
    assert "1 receivers" in run(debian_tool("amtool"), "check-config", "deploy/alertmanager/alertmanager.yml")
