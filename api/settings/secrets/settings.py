"""The settings SECRETS__…"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from api.settings.fields import SettingsGroup
from api.settings.home import HomePath
from auth.tokens.issuer_rules import is_safe_url

ENVIRONMENT_URL = "env://"
LOCAL_INTERVAL_S = 1.0
"""How often local files are checked for changes."""

_FORM = "must be env://, file://FOLDER, aws-sm://NAME[?region=REGION] or vault://HOST[:PORT]/MOUNT/PATH"


class VaultAuth(StrEnum):
    TOKEN = "token"  # noqa: S105  (the name of a method)
    APPROLE = "approle"
    KUBERNETES = "kubernetes"


def _check_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    valid = bool(separator) and (not rest if scheme == "env" else bool(rest.partition("?")[0]))
    if not valid or scheme not in ("env", "file", "aws-sm", "vault", "vault+http"):
        raise ValueError(_FORM)
    if scheme.startswith("vault"):
        address, _, path = rest.partition("/")
        mount, _, name = path.strip("/").partition("/")
        web = "http" if scheme == "vault+http" else "https"
        if not mount or not name or not is_safe_url(f"{web}://{address}", loopback=True):
            raise ValueError(f"{_FORM}. vault+http:// is for a Vault on this machine")
    return value


class SecretSettings(SettingsGroup, title="Secrets"):
    """Where [secrets](deploy/secrets.md) are read from: at the start, and again while the gateway runs."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        ENVIRONMENT_URL,
        description="`env://` (the environment and `.env`), `file://FOLDER` (a file for each, such as `/run/secrets`), "
        "`aws-sm://NAME[?region=REGION]` or `vault://HOST[:PORT]/MOUNT/PATH`. Its values override the environment "
        "and `.env`.",
    )
    refresh_seconds: int = Field(
        60,
        ge=1,
        le=3600,
        description="How many seconds pass between two reads of AWS or Vault; files and `.env` are checked every "
        "second. A new signing key is used after twice this time, and at least ten seconds; with `env://` after ten "
        "seconds.",
    )
    vault_auth: VaultAuth = Field(VaultAuth.TOKEN, description="How the gateway logs in to Vault.")
    vault_role: str | None = Field(None, description="The role id (`approle`), or the name of the role (`kubernetes`).")
    vault_credential: SecretStr | None = Field(
        None, description="The token, or the secret id of AppRole. With Kubernetes: by default the pod's own token."
    )
    vault_credential_file: HomePath | None = Field(
        None, description="A file that contains that credential; it is read again for each login."
    )

    @property
    def is_local(self) -> bool:
        """Whether the secrets are in files, or in the environment."""
        return self.url.startswith((ENVIRONMENT_URL, "file://"))

    def describe_missing(self, name: str) -> str:
        """Say how to set a missing secret."""
        if self.url == ENVIRONMENT_URL:
            return f"{name} is not set. Run `atalaya secrets init` to add one to .env."
        return (
            f"{name} is not where SECRETS__URL points, or is empty there, and is not set elsewhere. Store it there; "
            "`atalaya secrets print` prints new secrets."
        )

    @property
    def arrival_s(self) -> float:
        """The seconds within which every gateway with the same secrets has read a new value."""
        return LOCAL_INTERVAL_S if self.url == ENVIRONMENT_URL else 2.0 * self.refresh_seconds
