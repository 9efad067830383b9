"""Threat T9: a revocation holds, also while the gateway reads none because nobody sends requests."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.gateway import Gateway
from tests.support.polling import wait_until


def test_the_first_request_after_idling_knows_every_revocation(new_gateway: Callable[..., Gateway]) -> None:
    """T9: a token that was accepted is refused at the first request after an idle time in which it was revoked."""
    gateway = new_gateway(METRICS_PORT="", IDLE_SECONDS="0.2", MODEL__URL="stub://")
    headers = {"Authorization": f"Bearer {gateway.token()}"}
    assert gateway.get("/v1/me", headers=headers).status_code == 200
    wait_until(lambda: "gateway_idle" in gateway.log(), message=gateway.log)
    assert gateway.run("users", "disable", "ana").returncode == 0
    assert gateway.get("/v1/me", headers=headers).status_code == 401
