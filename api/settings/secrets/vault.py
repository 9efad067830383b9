"""A secret of HashiCorp Vault's key-value store, version 2, whose keys are settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hvac
import requests
from hvac.exceptions import Forbidden, InvalidPath, VaultError

from api.errors import SecretsUnavailable, SettingsError
from api.settings.secrets.settings import SecretSettings, VaultAuth

_TIMEOUT_S = 5
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class VaultSecret:
    """Logs in at the first read, and renews the token's lease when half of it has passed.

    `clock` returns seconds of a monotonic clock. Raises SettingsError if settings of the login method are missing.
    """

    def __init__(self, settings: SecretSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval_s = float(settings.refresh_seconds)
        scheme, _, rest = settings.url.partition("://")
        address, _, path = rest.strip("/").partition("/")
        self._mount, _, self._path = path.partition("/")
        self._client = hvac.Client(
            url=f"{'http' if scheme == 'vault+http' else 'https'}://{address}", timeout=_TIMEOUT_S
        )
        self._settings = settings
        self._clock = clock
        self._renew_at = 0.0
        self._logged_in = False
        self._check_settings()
        logging.getLogger("urllib3").setLevel(logging.INFO)

    def read(self) -> Mapping[str, str]:
        try:
            self._authenticate()
            try:
                return self._read_secret()
            except Forbidden:  # the token was revoked, or has expired while the gateway was suspended
                self._log_in()
                return self._read_secret()
        except InvalidPath:
            raise SecretsUnavailable(f"Vault has no secret {self._path} in the store {self._mount}.") from None
        except VaultError as error:
            raise SecretsUnavailable(f"Vault rejected the request: {type(error).__name__}.") from None
        except (requests.RequestException, OSError) as error:
            raise SecretsUnavailable(f"Vault cannot be reached: {type(error).__name__}.") from None
        except (TypeError, KeyError, AttributeError, ValueError):  # hvac returns whatever a proxy responds with
            raise SecretsUnavailable("The response is not from Vault. Check the address in SECRETS__URL.") from None

    def _read_secret(self) -> Mapping[str, str]:
        response = self._client.secrets.kv.v2.read_secret_version(
            path=self._path, mount_point=self._mount, raise_on_deleted_version=True
        )
        return {name: value for name, value in response["data"]["data"].items() if isinstance(value, str)}

    def _authenticate(self) -> None:
        if not self._logged_in:
            self._log_in()
        elif self._clock() >= self._renew_at:
            try:
                self._follow_lease(self._client.auth.token.renew_self()["auth"])
            except VaultError:
                self._log_in()

    def _log_in(self) -> None:
        credential, role = self._read_credential(), self._settings.vault_role
        match self._settings.vault_auth:
            case VaultAuth.TOKEN:
                self._client.token = credential
                token = self._client.auth.token.lookup_self()["data"]
                lease = {"lease_duration": token["ttl"]}
            case VaultAuth.APPROLE:
                lease = self._client.auth.approle.login(role_id=role, secret_id=credential)["auth"]
            case VaultAuth.KUBERNETES:
                lease = self._client.auth.kubernetes.login(role=role, jwt=credential)["auth"]
        self._follow_lease(lease)
        self._logged_in = True

    def _follow_lease(self, lease: Mapping[str, Any]) -> None:
        """Schedule a renewal, or else a new login, after half of the lease. A lease of 0 seconds never expires."""
        seconds = lease["lease_duration"]
        self._renew_at = self._clock() + seconds / 2 if seconds else float("inf")

    def _read_credential(self) -> str:
        """Read the credential, which may have changed since the last login. Raises OSError."""
        settings = self._settings
        if settings.vault_credential is not None:
            return settings.vault_credential.get_secret_value()
        return (settings.vault_credential_file or _SERVICE_ACCOUNT).read_text().strip()

    def _check_settings(self) -> None:
        settings, problems = self._settings, []
        by_role = settings.vault_auth is not VaultAuth.TOKEN
        if by_role and settings.vault_role is None:
            problems.append(f"SECRETS__VAULT_ROLE is required with SECRETS__VAULT_AUTH={settings.vault_auth}.")
        has_credential = settings.vault_credential is not None or settings.vault_credential_file is not None
        if settings.vault_auth is not VaultAuth.KUBERNETES and not has_credential:
            problems.append(
                "SECRETS__VAULT_CREDENTIAL or SECRETS__VAULT_CREDENTIAL_FILE is required with "
                f"SECRETS__VAULT_AUTH={settings.vault_auth}."
            )
        if problems:
            raise SettingsError(*problems)
