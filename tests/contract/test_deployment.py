"""The Compose file, the Dockerfile and the provisioning agree with each other, and keep the deployment isolated."""

from __future__ import annotations

import io
import ipaddress
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ATALAYA, BIN, ROOT

GATEWAYS = ["gateway", "gateway-2", "gateway-3"]


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


def test_replicas_are_gateways() -> None:
    """A replica differs from the first gateway only in that it starts later and has no published port."""
    first, *replicas = (services()[name] for name in GATEWAYS)
    own = {"profiles", "depends_on", "build", "ports"}
    for replica in replicas:
        assert {name: value for name, value in first.items() if name not in own} == {
            name: value for name, value in replica.items() if name not in own
        }
        assert "ports" not in replica
        assert replica["depends_on"] == {"gateway": {"condition": "service_healthy"}}


def test_compose_file_is_valid() -> None:
    """The Compose file follows the Compose specification's schema."""
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_published_ports() -> None:
    """Only Caddy is published to other machines; the metrics port and the databases are not published at all."""
    assert {name: service["ports"] for name, service in services().items() if "ports" in service} == {
        "gateway": ["127.0.0.1:8000:8000"],
        "caddy": ["80:80", "443:443", "443:443/udp"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager": ["127.0.0.1:9093:9093"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_databases_have_no_outside_network() -> None:
    """PostgreSQL and Redis are on one internal network, which they share with the gateway alone."""
    for database in ("postgres", "redis"):
        assert services()[database]["networks"] == ["data"]
    assert read_yaml("docker-compose.yml")["networks"]["data"]["internal"]
    members = [name for name, service in services().items() if "data" in service["networks"]]
    assert members == [*GATEWAYS, "postgres", "redis"]


def test_profiles() -> None:
    """Each service belongs to one profile; a service depends only on services of its own profile or of core."""
    profiles = {name: service["profiles"] for name, service in services().items()}
    assert all(len(names) == 1 for names in profiles.values())
    assert {names[0] for names in profiles.values()} == {"core", "monitoring", "replicas", "tls", "train"}
    for name, service in services().items():
        assert {profiles[other][0] for other in service.get("depends_on", {})} <= {"core", *profiles[name]}


def test_the_trusted_proxy_is_caddy() -> None:
    """By default the gateway trusts the fixed address of Caddy, in an internal network of Caddy and the gateways."""
    gateway, caddy = services()["gateway"], services()["caddy"]
    address = caddy["networks"]["edge"]["ipv4_address"]
    assert gateway["environment"]["LIMITS__TRUSTED_PROXIES"] == f"${{LIMITS__TRUSTED_PROXIES:-{address}}}"
    edge = read_yaml("docker-compose.yml")["networks"]["edge"]
    assert edge["internal"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(edge["ipam"]["config"][0]["subnet"])
    assert [name for name, service in services().items() if "edge" in service["networks"]] == [*GATEWAYS, "caddy"]


def test_published_services_cannot_reach_each_other_through_their_ports() -> None:
    """Each published service has one network to the outside, which it shares only with its replicas."""
    networks = read_yaml("docker-compose.yml")["networks"]
    outside = [
        network
        for name, service in services().items()
        for network in service["networks"]
        if name not in GATEWAYS[1:] and not networks[network].get("internal")
    ]
    assert sorted(outside) == sorted(name for name, network in networks.items() if not network.get("internal"))


def test_no_mount_needs_a_shared_root() -> None:
    """No volume uses mount propagation, which fails on hosts whose root mount is not shared."""
    volumes = [volume for service in services().values() for volume in service.get("volumes", [])]
    assert not [volume for volume in volumes if volume.endswith(("slave", "shared"))]


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


def test_services_are_hardened() -> None:
    """Each service has a read-only root, no capabilities, no new privileges, limited memory and log, a pinned image."""
    for service in services().values():
        check_hardening(service)


def check_hardening(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert re.search(r":v?\d+\.\d+", service["image"])


def test_secrets_are_files() -> None:
    """Secrets are files that `atalaya secrets print --compose` creates, and none is a container's variable."""
    archive = subprocess.run([ATALAYA, "secrets", "print", "--compose"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        modes = {file.name: file.mode for file in files}
    secrets = read_yaml("docker-compose.yml")["secrets"]
    assert modes == {".env": 0o600, "secrets": 0o700, **{f"secrets/{name}": 0o644 for name in secrets}}
    unset = ROOT / "deploy" / "compose" / "unset"
    assert {path.name: path.read_text() for path in unset.iterdir()} == dict.fromkeys(secrets, "")
    for name, secret in secrets.items():
        assert secret == {"file": f"${{SECRETS_FOLDER:-{unset.relative_to(ROOT)}}}/{name}"}
    used = {name for service in services().values() for name in service.get("secrets", [])}
    assert sorted(used) == sorted(secrets)
    assert not [name for service in services().values() for name in service.get("environment", {}) if name in secrets]


def test_env_file_overrides_what_the_guide_does_not_list() -> None:
    """Compose takes each setting of the gateway from `.env` if it is there, except those that the guide names."""
    environment = services()["gateway"]["environment"]
    fixed = {name for name, value in environment.items() if f"${{{name}:-" not in value}
    guide = (ROOT / "docs/deploy/compose.md").read_text()
    (sentence,) = re.findall(r"`\.env` cannot change (.+?)\. ", guide)
    assert fixed == set(re.findall(r"`([A-Z_]{4,})`", sentence))


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
    """.dockerignore admits only what the stages copy, including those for Keras."""
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
    job, node = config["scrape_configs"]
    port = services()["gateway"]["environment"]["METRICS_PORT"]
    assert (job["job_name"], job["static_configs"]) == ("atalaya", [{"targets": [f"gateway:{port}"]}])
    (found,) = job["dns_sd_configs"]
    assert (found["names"], found["type"], str(found["port"])) == (GATEWAYS[1:], "A", port)
    assert node["static_configs"] == [{"targets": ["node-exporter:9100"]}]
    assert config["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]


def test_grafana_matches_the_compose_file() -> None:
    """Grafana reads provisioning and dashboards from where Compose mounts them, and uses the scrape interval."""
    (provider,) = read_yaml("grafana/provisioning/dashboards/atalaya.yml")["providers"]
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    mounts = dict(volume.split(":")[:2] for volume in services()["grafana"]["volumes"])
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    scrape_interval = read_yaml("deploy/prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape_interval
