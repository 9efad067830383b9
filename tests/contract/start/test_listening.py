"""Where a gateway listens: HOST, PORT and METRICS_PORT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import make_authority
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.polling import PATIENCE_S


def check_health(gateway: Gateway, home: Path) -> str:
    """What `atalaya healthcheck` prints in another home, where it finds the gateway only by the settings."""
    done = gateway.with_settings(ATALAYA_HOME=str(home)).run("healthcheck", "--wait", str(PATIENCE_S))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_colons_are_every_address_of_both_ports(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """With HOST=:: PORT and METRICS_PORT can be reached over IPv4 and IPv6."""
    gateway = new_gateway(MODEL__URL="stub://", HOST="::")
    for port, path in ((gateway.port, "/livez"), (int(gateway.environment["METRICS_PORT"]), "/metrics")):
        for address in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{address}:{port}{path}", timeout=TIMEOUT_S).status_code == 200
    assert f"http://127.0.0.1:{gateway.port} is ready" in check_health(gateway, tmp_path)


def test_one_address_is_that_of_both_ports(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """With HOST=::1 neither port can be reached over IPv4, and the health check uses IPv6, with TLS."""
    certificate, key = make_authority(tmp_path / "pki").issue("CN=localhost")
    gateway = new_gateway(MODEL__URL="stub://", HOST="::1", TLS_CERTIFICATE=certificate, TLS_KEY=key)
    assert httpx.get(gateway.metrics_url, timeout=TIMEOUT_S).status_code == 200
    for port in (gateway.port, gateway.environment["METRICS_PORT"]):
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/", timeout=TIMEOUT_S)
    assert f"https://[::1]:{gateway.port} is ready" in check_health(gateway, tmp_path)
