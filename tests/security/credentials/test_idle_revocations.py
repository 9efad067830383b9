"""Threat T9: revocations while the gateway is idle and does not read them."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from auth.tokens.jws import generate_signing_key
from tests.support.gateway import Gateway
from tests.support.polling import wait_until
from tests.support.servers.vault import running_vault

IDLE = {"METRICS_PORT": "", "IDLE_SECONDS": "0.2", "MODEL__URL": "stub://"}


def wait_until_idle(gateway: Gateway) -> None:
    """Wait until the gateway becomes idle after the requests so far: it also becomes idle soon after the start."""
    request_id = uuid4().hex
    gateway.get("/.well-known/jwks.json", headers={"X-Request-ID": request_id})
    wait_until(lambda: "gateway_idle" in gateway.log().partition(request_id)[2], message=gateway.log)


def test_the_first_request_after_idling_knows_every_revocation(new_gateway: Callable[..., Gateway]) -> None:
    """T9: a token that was accepted is rejected at the first request after an idle time in which it was revoked."""
    gateway = new_gateway(**IDLE)
    headers = {"Authorization": f"Bearer {gateway.token()}"}
    assert gateway.get("/v1/me", headers=headers).status_code == 200
    wait_until_idle(gateway)
    assert gateway.run("users", "disable", "ana").returncode == 0
    assert gateway.get("/v1/me", headers=headers).status_code == 401


def test_the_first_request_after_idling_knows_the_signing_keys(new_gateway: Callable[..., Gateway]) -> None:
    """T9: a token is rejected at the first request after an idle time in which its signing key was removed."""
    with running_vault() as vault:
        vault.tokens = {"hvs.root"}
        vault.secrets = {"AUTH__SIGNING_KEY": generate_signing_key("ES256")}
        gateway = new_gateway(SECRETS__URL=vault.url, SECRETS__VAULT_CREDENTIAL="hvs.root", **IDLE)
        headers = {"Authorization": f"Bearer {gateway.token()}"}
        wait_until_idle(gateway)
        vault.secrets = {"AUTH__SIGNING_KEY": generate_signing_key("ES256")}
        assert gateway.get("/v1/me", headers=headers).status_code == 401
        assert gateway.get("/v1/me", headers={"Authorization": f"Bearer {gateway.token()}"}).status_code == 200
