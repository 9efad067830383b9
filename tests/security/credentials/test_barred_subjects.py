"""Threat T46: users of external issuers whose access must end at once, on a gateway with several workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from api.commands.database import command_actor
from tests.security.credentials.revocation import REVOKED_WITHIN_S
from tests.support.gateway import TIMEOUT_S, Gateway, running_gateway
from tests.support.polling import wait_until
from tests.support.servers.identity_provider import IdentityProvider
from tests.support.servers.running import running

WORKERS = 2
BARRED = (403, "subject_barred")


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with running(IdentityProvider()) as provider:
        yield provider


@pytest.fixture(scope="module")
def trusting(provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose workers trust the provider."""
    issuer = {"issuer": provider.issuer, "audience": "atalaya", "scopes": {"land:read": "predict"}}
    settings = {"AUTH__ISSUERS": json.dumps([issuer]), "MODEL__URL": "stub://", "WEB_CONCURRENCY": str(WORKERS)}
    with running_gateway(tmp_path_factory.mktemp("barred"), **settings) as gateway:
        yield gateway


def ask_workers(gateway: Gateway, token: str) -> set[tuple[int, str]]:
    """Return the statuses and codes of many requests, each on its own connection so that both workers serve."""
    responses = [gateway.get("/v1/me", headers={"Authorization": f"Bearer {token}"}) for _ in range(8 * WORKERS)]
    return {(response.status_code, response.json().get("code", "")) for response in responses}


def wait_for_responses(gateway: Gateway, token: str, expected: tuple[int, str]) -> None:
    """Wait until every worker has read a change: one that is slow may serve none of the first requests."""
    wait_until(lambda: ask_workers(gateway, token) == {expected}, within_s=REVOKED_WITHIN_S)


def test_a_barred_user_is_rejected_by_every_worker(trusting: Gateway, provider: IdentityProvider) -> None:
    """T46: soon after `users bar` no worker accepts the user's cached token or a new one, until `users unbar`."""
    token = provider.token(sub="ada")
    assert ask_workers(trusting, token) == {(200, "")}
    barred = trusting.run("users", "bar", provider.issuer, "ada")
    assert barred.returncode == 0, barred.stderr
    for barred_token in (token, provider.token(sub="ada", jti="new")):
        wait_for_responses(trusting, barred_token, BARRED)
    assert ask_workers(trusting, provider.token(sub="grace")) == {(200, "")}
    assert trusting.run("users", "unbar", provider.issuer, "ada").returncode == 0
    wait_for_responses(trusting, token, (200, ""))


def test_a_bar_survives_a_restart(trusting: Gateway, provider: IdentityProvider) -> None:
    """T46: a gateway that starts later still rejects barred users, and `users barred` lists them."""
    assert trusting.run("users", "bar", provider.issuer, "leaver").returncode == 0
    trusting.stop()
    trusting.start()
    assert ask_workers(trusting, provider.token(sub="leaver")) == {BARRED}
    listed = json.loads(trusting.run("users", "barred", "--json").stdout)
    assert (provider.issuer, "leaver") in [(each["issuer"], each["subject"]) for each in listed]
    assert "leaver" in trusting.run("users", "barred").stdout


def test_bars_and_rejections_are_in_the_audit_log(trusting: Gateway, provider: IdentityProvider) -> None:
    """T46: the audit log records who barred and unbarred whom, and the barred user's attempts."""
    assert trusting.run("users", "bar", provider.issuer, "mallory").returncode == 0
    token = provider.token(sub="mallory")
    wait_for_responses(trusting, token, BARRED)
    assert trusting.run("users", "unbar", provider.issuer, "mallory").returncode == 0
    name = f"{provider.issuer}|mallory"
    auditor = trusting.client("olga")

    def read(event: str) -> list[dict[str, str]]:
        entries: list[dict[str, str]] = auditor.get("/v1/audit", params={"event": event}).json()["entries"]
        return entries

    entries = [entry for entry in read("subject") if entry["target"] == f"subject:{name}"]
    assert [(entry["outcome"], entry["actor"]) for entry in entries] == [
        ("unbarred", command_actor()),
        ("barred", command_actor()),
    ]
    wait_until(lambda: any(entry["actor"] == name and entry["outcome"] == "forbidden" for entry in read("access")))


def test_a_mistyped_issuer_bars_nobody(trusting: Gateway, provider: IdentityProvider) -> None:
    """T46: barring a user of an issuer that is not configured is a usage error, which names the configured issuers."""
    refused = trusting.run("users", "bar", f"{provider.issuer}/", "ada")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert provider.issuer in refused.stderr
    unknown = trusting.run("users", "unbar", provider.issuer, "nobody")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)


def test_a_barred_user_cannot_revoke_or_inspect_tokens(trusting: Gateway, provider: IdentityProvider) -> None:
    """T46: the OAuth endpoints reject a barred user with an OAuth error."""
    assert trusting.run("users", "bar", provider.issuer, "eve").returncode == 0
    token = provider.token(sub="eve")
    headers = {"Authorization": f"Bearer {token}"}
    wait_for_responses(trusting, token, BARRED)
    with httpx.Client(base_url=trusting.base_url, headers=headers, timeout=TIMEOUT_S) as client:

        def is_refused(path: str) -> bool:
            response = client.post(path, data={"token": "x"})
            return response.status_code == 403 and response.json()["error"] == "access_denied"

        for path in ("/auth/introspect", "/auth/revoke"):
            wait_until(partial(is_refused, path), within_s=REVOKED_WITHIN_S)
