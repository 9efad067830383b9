"""A real Prometheus and a real Alertmanager that run the shipped configuration ten times as fast."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from tests.deploy.receivers import MailServer, Webhook
from tests.deploy.rule_files import FILES
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port
from tests.support.requirements import find_program

SPEED = 10
RUNBOOKS_URL = "https://runbooks.example/atalaya"
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Alerting:
    """Clients of both servers."""

    prometheus: httpx.Client
    alertmanager: httpx.Client

    def alerts(self, state: str) -> set[str]:
        """Return the names of the alerts that Alertmanager has in this state, `active` or `suppressed`."""
        response = self.alertmanager.get("/api/v2/alerts")
        alerts = response.json() if response.is_success else []
        return {alert["labels"]["alertname"] for alert in alerts if alert["status"]["state"] == state}


@contextmanager
def running(folder: Path, metrics_url: str, webhook: Webhook, mail: MailServer) -> Iterator[Alerting]:
    """Run both servers, which monitor the gateway whose metrics are at `metrics_url`."""
    ports = free_port(), free_port()
    _write_prometheus_configuration(folder, metrics_url, ports[1])
    _write_alertmanager_configuration(folder, webhook, mail)
    commands = (
        [
            find_program("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/prometheus",
            f"--web.listen-address=127.0.0.1:{ports[0]}",
            "--enable-feature=expand-external-labels",  # the default from Prometheus 3 on
            # Otherwise, an alert that fires before Alertmanager is discovered is sent a minute later.
            "--rules.alert.resend-delay=1s",
        ],
        [
            find_program("prometheus-alertmanager"),
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/alertmanager",
            f"--web.listen-address=127.0.0.1:{ports[1]}",
            "--cluster.listen-address=",
        ],
    )
    with ExitStack() as stack:
        for command in commands:
            stack.enter_context(_process(command, folder))
        clients = [_client(port) for port in ports]
        for client in clients:
            stack.enter_context(client)
            wait_until(lambda client=client: _is_ready(client))  # type: ignore[misc]
        yield Alerting(*clients)


def _client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S)


@contextmanager
def _process(command: Sequence[str], folder: Path) -> Iterator[None]:
    environment = {**os.environ, "RUNBOOKS_URL": RUNBOOKS_URL}
    log = (folder / f"{Path(command[0]).name}.log").open("wb")
    with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def _write_prometheus_configuration(folder: Path, metrics_url: str, alertmanager_port: int) -> None:
    """Copy the configuration and the rules with other addresses and shorter times."""
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    configuration["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    job, _ = configuration["scrape_configs"]
    configuration["scrape_configs"] = [job]
    metrics = urlsplit(metrics_url)
    job |= {"metrics_path": metrics.path, "static_configs": [{"targets": [metrics.netloc]}]}
    (alertmanager,) = configuration["alerting"]["alertmanagers"]
    alertmanager["static_configs"] = [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    (folder / "rules").mkdir()
    for path in FILES:
        rules = yaml.safe_load(path.read_text())
        for group in rules["groups"]:
            group.pop("interval", None)
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = _accelerate(rule["for"])
        (folder / "rules" / path.name).write_text(yaml.safe_dump(rules))


def _write_alertmanager_configuration(folder: Path, webhook: Webhook, mail: MailServer) -> None:
    """Copy the configuration with receivers on loopback; Slack and e-mail receive the webhook's alerts too."""
    configuration = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    for name, secret in (("smtp_auth_password_file", "correct horse"), ("slack_api_url_file", f"{webhook.url}/slack")):
        file = folder / name
        file.write_text(secret)
        configuration["global"][name] = str(file)
    configuration["global"] |= {"smtp_smarthost": mail.address, "smtp_require_tls": False}
    receivers = {receiver["name"]: receiver for receiver in configuration["receivers"]}
    receivers["webhook"]["webhook_configs"][0]["url"] = f"{webhook.url}/alerts"
    route: dict[str, Any] = configuration["route"]
    route |= {"group_wait": _accelerate(route["group_wait"]), "group_interval": "1s"}
    route["routes"] += [{"receiver": name, "matchers": [], "continue": True} for name in ("slack", "email")]
    route["routes"] += [{"receiver": "webhook"}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(configuration))


def _accelerate(duration: str) -> str:
    ((number, unit),) = re.findall(r"(\d+)(\w)", duration)
    return f"{int(number) * _SECONDS[unit] * 1000 // SPEED}ms"
