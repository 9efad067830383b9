"""The real stack of docker-compose.yml: a gateway with its databases, Caddy and its monitoring."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.topology.containers import is_possible
from tests.deploy.topology.stack import Stack, running_stack
from tests.support.gateway import PASSWORD
from tests.support.paths import FOREST
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.requirements import missing

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not is_possible():
        missing("network namespaces need root and iproute2: apt-get install iproute2")
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


class Browser:
    """curl on the machine that runs the stack: it reaches the ports that Caddy publishes, and trusts its local CA."""

    def __init__(self, stack: Stack) -> None:
        self._namespace = stack.networks.join_as_host("web")
        self._caddy = stack.networks.address("caddy", "web")
        self._authority = stack.containers["caddy"].volume("caddy-data") / "caddy/pki/authorities/local/root.crt"
        wait_until(lambda: self.get("https://localhost/livez").returncode == 0, message=stack.containers["caddy"].log)

    def get(self, url: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Return the response, preceded by its headers."""
        names = ["--resolve", f"localhost:443:{self._caddy}", "--resolve", f"localhost:80:{self._caddy}"]
        basic = ["--silent", "--include", "--noproxy", "*", "--http2", "--cacert", str(self._authority)]
        command = ["ip", "netns", "exec", self._namespace, "curl", *basic, *names, *options, url]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    def get_json(self, url: str, *options: str) -> Any:
        return json.loads(self.get(url, *options).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def browser(stack: Stack) -> Browser:
    return Browser(stack)


def test_a_prediction_through_tls(stack: Stack, browser: Browser) -> None:
    """A user logs in and predicts over HTTPS; the audit log has the user's address, and Redis is used."""
    gateway = stack.containers["gateway"]
    added = gateway.run("atalaya", "users", "add", "ana", "--role", "client", "--password-stdin", stdin=PASSWORD)
    assert added.returncode == 0, added.stderr
    login = ["--data", "grant_type=password", "--data", "username=ana", "--data-urlencode", f"password={PASSWORD}"]
    token = browser.get_json("https://localhost/auth/token", *login)["access_token"]
    authorization = ["--header", f"Authorization: Bearer {token}"]
    prediction = browser.get_json("https://localhost/v1/predictions", *authorization, "--form", f"file=@{FOREST}")
    assert prediction["label"] == "forest"
    assert int(stack.containers["redis"].run("redis-cli", "dbsize").stdout) > 0  # soon, because the counts expire
    events = json.loads(gateway.run("atalaya", "audit", "--event", "token", "--json").stdout)
    assert stack.networks.address("host", "web") in json.dumps(events)
    assert stack.networks.address("caddy", "edge") not in json.dumps(events)


def test_http_is_redirected(browser: Browser) -> None:
    """Responses over HTTPS use HTTP/2 and HSTS, and requests over HTTP are redirected to HTTPS."""
    secure = browser.get("https://localhost/livez").stdout
    assert secure.startswith("HTTP/2 200")
    assert "strict-transport-security: max-age=" in secure
    plain = browser.get("http://localhost/livez").stdout
    assert plain.startswith("HTTP/1.1 308")
    assert "Location: https://localhost/livez" in plain


def test_monitoring(stack: Stack) -> None:
    """Prometheus scrapes the gateway's private port and the machine, and its alerts reach Alertmanager."""

    def active_targets() -> dict[str, str]:
        found = stack.fetch("prometheus", "http://127.0.0.1:9090/api/v1/targets")
        targets = found["data"]["activeTargets"] if found else []
        return {target["labels"]["job"]: target["health"] for target in targets}

    def received_alerts() -> set[str]:
        alerts = stack.fetch("prometheus", "http://alertmanager:9093/api/v2/alerts") or []
        return {alert["labels"]["alertname"] for alert in alerts}

    wait_until(lambda: active_targets() == {"atalaya": "up", "node": "up"}, message=active_targets)
    wait_until(lambda: "AtalayaWatchdog" in received_alerts(), message=stack.containers["alertmanager"].log)


def test_databases_are_inside_only(stack: Stack) -> None:
    """Neither Caddy nor Prometheus can connect to the databases, not even by address."""
    for service, port in (("postgres", 5432), ("redis", 6379)):
        address = stack.networks.address(service, "data")
        for other in ("caddy", "prometheus"):
            attempt = stack.containers[other].run("curl", "--silent", "--max-time", "10", f"telnet://{address}:{port}")
            assert attempt.returncode == 7, (service, other, attempt)
