"""Secrets in Vault, against a test double of Vault's HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.errors import SecretsUnavailable, SettingsError
from api.settings.secrets.settings import SecretSettings
from api.settings.secrets.vault import VaultSecret
from tests.support.servers.vault import VaultDouble, running_vault

READ, RENEW = "GET /v1/secret/data/atalaya", "POST /v1/auth/token/renew-self"
APPROLE, KUBERNETES = "/v1/auth/approle/login", "/v1/auth/kubernetes/login"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def vault() -> Iterator[VaultDouble]:
    with running_vault() as double:
        double.secrets = {"AUTH__SIGNING_KEY": "key"}
        double.tokens = {"hvs.root"}
        double.logins = {
            APPROLE: {"role_id": "role", "secret_id": "secret"},
            KUBERNETES: {"role": "atalaya", "jwt": "pod"},
        }
        yield double


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_vault(vault: VaultDouble, clock: Clock, **settings: object) -> VaultSecret:
    return VaultSecret(SecretSettings.model_validate({"url": vault.url, **settings}), clock)


def by_role(vault: VaultDouble, clock: Clock) -> VaultSecret:
    return open_vault(vault, clock, vault_auth="approle", vault_role="role", vault_credential="secret")


def test_a_token(vault: VaultDouble, clock: Clock) -> None:
    """With a token the secret is read, and its keys are settings."""
    assert open_vault(vault, clock, vault_credential="hvs.root").read() == {"AUTH__SIGNING_KEY": "key"}


def test_approle(vault: VaultDouble, clock: Clock) -> None:
    """AppRole logs in once; later reads use its token."""
    secret = by_role(vault, clock)
    assert secret.read() == secret.read() == {"AUTH__SIGNING_KEY": "key"}
    assert vault.requests == [f"POST {APPROLE}", READ, READ]


def test_kubernetes(vault: VaultDouble, clock: Clock, tmp_path: Path) -> None:
    """Kubernetes logs in with the pod's token from a file, which is read again for each login."""
    file = tmp_path / "token"
    file.write_text("expired\n")
    secret = open_vault(vault, clock, vault_auth="kubernetes", vault_role="atalaya", vault_credential_file=file)
    with pytest.raises(SecretsUnavailable, match="Vault rejected the request: Forbidden"):
        secret.read()
    file.write_text("pod\n")
    assert secret.read() == {"AUTH__SIGNING_KEY": "key"}


def test_the_lease_is_renewed(vault: VaultDouble, clock: Clock) -> None:
    """A token is renewed when half of its lease has passed, and not before."""
    secret = by_role(vault, clock)
    secret.read()
    clock.now = vault.lease_s / 2 - 1
    secret.read()
    assert RENEW not in vault.requests
    clock.now += 1
    secret.read()
    secret.read()
    assert vault.requests[-3:] == [RENEW, READ, READ]


def test_a_lease_that_cannot_be_renewed(vault: VaultDouble, clock: Clock) -> None:
    """If a lease cannot be renewed, the gateway logs in again."""
    vault.renewable = False
    secret = by_role(vault, clock)
    secret.read()
    clock.now = vault.lease_s / 2
    assert secret.read() == {"AUTH__SIGNING_KEY": "key"}
    assert vault.requests[-3:] == [RENEW, f"POST {APPROLE}", READ]


def test_a_revoked_token(vault: VaultDouble, clock: Clock) -> None:
    """After its token was revoked, the gateway logs in again within the same read."""
    secret = by_role(vault, clock)
    secret.read()
    vault.tokens.clear()
    assert secret.read() == {"AUTH__SIGNING_KEY": "key"}


def test_an_endless_token_is_not_renewed(vault: VaultDouble, clock: Clock) -> None:
    """A token that does not expire, such as a root token, is never renewed."""
    vault.lease_s = 0
    secret = open_vault(vault, clock, vault_credential="hvs.root")
    secret.read()
    clock.now = 1e9
    secret.read()
    assert RENEW not in vault.requests


def test_a_missing_secret(vault: VaultDouble, clock: Clock) -> None:
    """A missing secret is an error that names its path and store."""
    vault.secrets = {}
    with pytest.raises(SecretsUnavailable, match="Vault has no secret atalaya in the store secret"):
        by_role(vault, clock).read()


def test_unreachable(vault: VaultDouble, clock: Clock) -> None:
    """If Vault cannot be reached, the error says so, and a later read tries again."""
    secret = by_role(vault, clock)
    for _ in range(2):  # at the login, and after it
        vault.reachable = False
        with pytest.raises(SecretsUnavailable, match="Vault cannot be reached: ConnectionError"):
            secret.read()
        vault.reachable = True
        assert secret.read() == {"AUTH__SIGNING_KEY": "key"}


@pytest.mark.parametrize("page", ["<html>Welcome</html>", "[]", "{}", '{"data": {"data": []}, "auth": []}', "null"])
def test_a_response_that_is_not_of_vault(vault: VaultDouble, clock: Clock, page: str) -> None:
    """A response with status 200 that is not Vault's, such as a proxy's login page, is reported as such."""
    vault.page = page
    for secret in (by_role(vault, clock), open_vault(vault, clock, vault_credential="hvs.root")):
        with pytest.raises(SecretsUnavailable, match="The response is not from Vault"):
            secret.read()


@pytest.mark.parametrize("method", ["token", "approle", "kubernetes"])
def test_missing_settings(vault: VaultDouble, clock: Clock, method: str) -> None:
    """A login method that lacks settings is an error that names each of them."""
    with pytest.raises(SettingsError) as caught:
        open_vault(vault, clock, vault_auth=method)
    missing = [problem.partition(" ")[0] for problem in caught.value.problems]
    assert (
        missing
        == {
            "token": ["SECRETS__VAULT_CREDENTIAL"],
            "approle": ["SECRETS__VAULT_ROLE", "SECRETS__VAULT_CREDENTIAL"],
            "kubernetes": ["SECRETS__VAULT_ROLE"],
        }[method]
    )
