"""The settings AUTH__…"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from api.settings.fields import SettingsGroup, parse_json
from api.settings.home import HomePath
from api.settings.urls import check_issuer_url, check_public_url
from auth.certificate_subjects import read_subject
from auth.login.data_keys import is_data_key
from auth.principal import Role, Scope
from auth.tokens.issuer_rules import ExternalIssuer, IssuerAlgorithm


class IssuerSettings(SettingsGroup):
    """An external identity provider; ExternalIssuer explains the fields."""

    issuer: str
    audience: str = Field(min_length=1)
    audience_claim: str = Field("aud", min_length=1)
    algorithms: tuple[IssuerAlgorithm, ...] = Field(("RS256", "ES256"), min_length=1)
    scope_claim: str = "scope"
    scopes: dict[str, Scope] = Field(default_factory=dict)
    roles_claim: str | None = None
    roles: dict[str, Role] = Field(default_factory=dict)
    default_role: Role | None = None
    leeway_s: int = Field(30, ge=0, le=300)

    @field_validator("issuer")
    @classmethod
    def _check_url(cls, value: str) -> str:
        check_issuer_url(value)
        return value

    def to_issuer(self) -> ExternalIssuer:
        return ExternalIssuer(**dict(self))


class AuthSettings(SettingsGroup, title="Authentication"):
    """Tokens and users: [authentication](security/auth.md), [users](security/users.md)."""

    signing_algorithm: Literal["ES256", "HS256"] = Field(
        "ES256", description="`ES256` uses a key pair, `HS256` a shared secret of at least 256 bits."
    )
    signing_key: SecretStr | None = Field(
        None,
        description="The private key that signs access tokens, as PEM with `\\n` for its line ends; for HS256 the "
        "secret. Several keys may follow each other, each after a line `Created: TIME`: the newest signs, all verify. "
        "`atalaya keys rotate` adds one. This setting or the next is required.",
    )
    signing_key_file: HomePath | None = Field(
        None,
        description="A file with the same content. The gateway reloads it within a second of a change.",
    )
    data_key: SecretStr | None = Field(
        None,
        description="32 random bytes in base64, which encrypt the secrets of one-time codes (TOTP). When empty: users "
        "cannot turn on codes. If it is lost, reset the users who have codes with `atalaya users totp-reset`.",
    )
    issuer: str | None = Field(
        None,
        description="The gateway's public address, and the `iss` of its access tokens. When empty: "
        "`https://RAILWAY_PUBLIC_DOMAIN`, or in development "
        "`http://localhost:PORT`. Production requires an address, because a change invalidates all tokens.",
    )
    audience: str = Field("atalaya", description="The `aud` of the access tokens.")
    access_token_seconds: int = Field(900, ge=60, le=3600, description="Lifetime of an access token in seconds.")
    session_seconds: int = Field(
        30 * 86_400,
        ge=3600,
        description="For how many seconds a login can be refreshed before the password is required again.",
    )
    password_grant: bool = Field(True, description="Whether users get tokens for their password at `/auth/token`.")
    client_certificates: dict[str, str] = Field(
        default_factory=dict,
        description="[Client certificates](security/identity-providers.md#mutual-tls) mapped to users: "
        '`{"CN=field-app,O=Example": "ana"}`, with subjects as in RFC 4514.',
    )
    issuers: tuple[IssuerSettings, ...] = Field(
        (),
        description="[External identity providers](security/identity-providers.md#external-identity-providers) whose "
        'access tokens are accepted: `[{"issuer": "https://…", "audience": "…", "scopes": {"their:scope": "predict"}, '
        '"roles_claim": "groups", "roles": {"their-group": "operator"}}]`. None when empty.',
    )

    @field_validator("issuer")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        if value is not None:
            check_public_url(value)
        return value

    @field_validator("data_key")
    @classmethod
    def _check_data_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_data_key(value.get_secret_value()):
            raise ValueError("must be 32 random bytes in base64, as `atalaya secrets init` generates")
        return value

    @field_validator("client_certificates")
    @classmethod
    def _check_subjects(cls, value: dict[str, str]) -> dict[str, str]:
        for subject in value:
            try:
                read_subject(subject)
            except ValueError:
                example = '{"CN=field-app,O=Example": "ana"}'
                raise ValueError(f"must map subjects as in RFC 4514 to user names, such as {example}") from None
        return value

    _parse_json = field_validator("issuers", "client_certificates", mode="before")(parse_json)

    @field_validator("issuers")
    @classmethod
    def _check_unique(cls, value: tuple[IssuerSettings, ...]) -> tuple[IssuerSettings, ...]:
        if len({entry.issuer for entry in value}) < len(value):
            raise ValueError("an issuer is listed twice")
        return value
