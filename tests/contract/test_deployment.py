from __future__ import annotations

import ipaddress
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import BIN, ROOT


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


def test_compose_file_is_valid() -> None:
    """The Compose file follows the Compose specification's schema."""
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_published_ports() -> None:
    """What people use is published, on loopback only; the metrics port and the database are not."""
    assert {name: service["ports"] for name, service in services().items() if "ports" in service} == {
        "gateway": ["127.0.0.1:8000:8000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager": ["127.0.0.1:9093:9093"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_the_database_has_no_outside_network() -> None:
    """The database is on one internal network, which it shares with the gateway alone."""
    (network,) = services()["postgres"]["networks"]
    assert read_yaml("docker-compose.yml")["networks"][network]["internal"]
    assert [name for name, service in services().items() if network in service["networks"]] == ["gateway", "postgres"]


def test_published_services_cannot_reach_each_other_through_their_ports() -> None:
    """Each published service has one network to the outside, which no other service has."""
    networks = read_yaml("docker-compose.yml")["networks"]
    outside = [
        network
        for service in services().values()
        for network in service["networks"]
        if not networks[network].get("internal")
    ]
    assert sorted(outside) == sorted(name for name, network in networks.items() if not network.get("internal"))


def test_prometheus_serves_the_runbooks() -> None:
    """By default the links in alerts lead to the pages that Prometheus has mounted and serves under /user."""
    prometheus = services()["prometheus"]
    mounts = dict(volume.split(":")[:2] for volume in prometheus["volumes"])
    assert f"--web.user-assets={mounts['./docs/runbooks']}" in prometheus["command"]
    (address,) = re.findall(r"--web.external-url=(\S+)", " ".join(prometheus["command"]))
    assert prometheus["environment"]["RUNBOOKS_URL"] == f"${{RUNBOOKS_URL:-{address}/user}}"


def test_requests_of_a_host_proxy_have_a_fixed_address() -> None:
    """The gateway's only network to the outside is fixed, and the guide names the host's address in it."""
    networks = read_yaml("docker-compose.yml")["networks"]
    outside = [name for name in services()["gateway"]["networks"] if not networks[name].get("internal")]
    (network,) = networks["front"]["ipam"]["config"]
    assert outside == ["front"]
    assert ipaddress.ip_address(network["gateway"]) in ipaddress.ip_network(network["subnet"])
    assert f"LIMITS__TRUSTED_PROXIES={network['gateway']}" in (ROOT / "docs/deploy/proxies.md").read_text()


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


def test_base_is_pinned_and_replaceable() -> None:
    """All stages start from one of two arguments or from each other, and the default base is pinned by its digest."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)
    names = {name for _, name in stages}
    assert {base for base, _ in stages} - names == {"${PYTHON_IMAGE}", "${BUILDER_IMAGE}"}
    assert re.search(r"^ARG PYTHON_IMAGE=\S+:3\.\d+-slim@sha256:[0-9a-f]{64}$", dockerfile, re.MULTILINE)
    assert stages[-1][1] == "gateway"
    assert dockerfile.count("pip install") == dockerfile.count("--require-hashes") + dockerfile.count("--no-deps")


def test_build_context_is_what_the_dockerfile_copies() -> None:
    """.dockerignore lets through what the stages copy, those for Keras among them, and nothing else."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = [
        source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE) for source in line.split()
    ]
    mounted = re.findall(r"--mount=type=bind,source=([^,]+)", dockerfile)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == {path.rstrip("/") for path in [*copied, *mounted]}


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
