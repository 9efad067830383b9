"""All settings and their defaults; .env.example describes them. No other module reads the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.errors import SettingsError
from api.http.host_names import host_name
from auth.certificate_subjects import read_subject
from auth.login.data_keys import is_data_key
from auth.principal import Role, Scope
from auth.tokens.issuer_rules import ExternalIssuer, IssuerAlgorithm, is_safe_url

Rate = Annotated[str, Field(pattern=r"^\d+/(\d+ ?)?(second|minute|hour|day)s?$")]


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _is_redis_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        target = parts.path if parts.scheme == "unix" else parts.port != 0 and parts.hostname
    except ValueError:
        return False
    database = parts.path.strip("/") if parts.scheme != "unix" else ""
    return parts.scheme in ("redis", "rediss", "unix") and bool(target) and (not database or database.isdecimal())


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class _SettingsGroup(BaseModel):
    # Forbids unknown names, so that a mistyped setting is an error.
    model_config = ConfigDict(extra="forbid", frozen=True)


class IssuerSettings(_SettingsGroup):
    """An external identity provider; ExternalIssuer explains the fields."""

    issuer: str
    audience: str = Field(min_length=1)
    algorithms: tuple[IssuerAlgorithm, ...] = Field(("RS256", "ES256"), min_length=1)
    scope_claim: str = "scope"
    scopes: dict[str, Scope] = {}
    roles_claim: str | None = None
    roles: dict[str, Role] = {}
    default_role: Role | None = None
    leeway_s: int = Field(30, ge=0, le=300)

    @field_validator("issuer")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not is_safe_url(value, loopback=True):
            raise ValueError("must be an https URL (http only for this machine)")
        return value

    def to_issuer(self) -> ExternalIssuer:
        return ExternalIssuer(**dict(self))


class AuthSettings(_SettingsGroup):
    signing_algorithm: Literal["ES256", "HS256"] = "ES256"
    signing_key: SecretStr | None = None
    signing_key_file: Path | None = None
    data_key: SecretStr | None = None
    issuer: str | None = None
    audience: str = "atalaya"
    access_token_seconds: int = Field(900, ge=60, le=3600)
    session_seconds: int = Field(30 * 86_400, ge=3600)
    password_grant: bool = True
    client_certificates: Annotated[dict[str, str], NoDecode] = {}
    issuers: Annotated[tuple[IssuerSettings, ...], NoDecode] = ()

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
            read_subject(subject)
        return value

    @field_validator("issuers", "client_certificates", mode="before")
    @classmethod
    def _parse_json(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("issuers")
    @classmethod
    def _check_unique(cls, value: tuple[IssuerSettings, ...]) -> tuple[IssuerSettings, ...]:
        if len({entry.issuer for entry in value}) < len(value):
            raise ValueError("an issuer is listed twice")
        return value


class ModelSettings(_SettingsGroup):
    url: str = "onnx://artifacts/efficientnetb0-v1.0"
    workers: int | None = Field(None, ge=1, le=64)
    queue_limit: int = Field(64, ge=0, le=10_000)
    queue_seconds: float = Field(2.0, gt=0, le=60)
    deadline_seconds: float = Field(30.0, gt=0, le=300)
    memory_megabytes: int | None = Field(None, ge=1, le=1_000_000)
    keras_python: str | None = None


class LimitSettings(_SettingsGroup):
    predict: Rate = "10000/minute"
    token: Rate = "30/minute"  # noqa: S105  (a rate)
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = ()

    _split_networks = field_validator("trusted_proxies", mode="before")(_split_commas)


class MonitoringSettings(_SettingsGroup):
    audit_keep_days: int = Field(365, ge=1, le=36_500)


class LedgerSettings(_SettingsGroup):
    enabled: bool = True
    signing_key: SecretStr | None = None
    keep_days: int = Field(3650, ge=1, le=36_500)
    spool_folder: Path = Path("var/spool")
    spool_megabytes: int = Field(64, ge=1, le=100_000)


class Settings(BaseSettings):
    """Read from the environment, else from `.env` in the working directory, else the defaults below."""

    model_config = SettingsConfigDict(
        env_file=".env", env_nested_delimiter="__", extra="ignore", frozen=True, env_ignore_empty=True
    )

    environment: Environment = Environment.DEVELOPMENT
    port: int = Field(8000, ge=0, le=65535)
    metrics_port: int | None = Field(None, ge=1, le=65535)
    database_url: SecretStr = SecretStr("sqlite:///var/atalaya.db")
    redis_url: SecretStr | None = None
    sentry_dsn: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    docs: bool | None = None
    web_concurrency: int = Field(1, ge=1, le=64)
    drain_seconds: float = Field(2.0, ge=0, le=300)
    # The directory that the workers of one machine share. The gateway sets it for its own workers.
    atalaya_shared: Path | None = None
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    railway_public_domain: str | None = None
    railway_private_domain: str | None = None
    auth: AuthSettings = AuthSettings()
    model: ModelSettings = ModelSettings()
    limits: LimitSettings = LimitSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    ledger: LedgerSettings = LedgerSettings()

    _split_hosts = field_validator("allowed_hosts", mode="before")(_split_commas)

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_redis_url(value.get_secret_value()):
            raise ValueError("must be redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER], rediss://… for TLS, or unix://PATH")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def in_production(self) -> bool:
        return self.environment is Environment.PRODUCTION

    @property
    def docs_enabled(self) -> bool:
        """Whether to serve the interactive documentation: DOCS, or by default only in development."""
        return not self.in_production if self.docs is None else self.docs

    @property
    def inferences_at_once(self) -> int:
        """Concurrent inferences in each worker: MODEL__WORKERS, or the worker's share of the cores."""
        return self.model.workers or max(1, len(os.sched_getaffinity(0)) // self.web_concurrency)

    @property
    def host_names(self) -> frozenset[str]:
        """The host names that the gateway serves: ALLOWED_HOSTS, or by default localhost and its known public names."""
        if self.allowed_hosts:
            return frozenset(map(host_name, self.allowed_hosts))
        public = urlsplit(self.issuer).netloc, self.railway_public_domain, self.railway_private_domain
        return frozenset({"localhost", "127.0.0.1", "[::1]", *(host_name(name) for name in public if name)})

    @property
    def issuer(self) -> str:
        """The `iss` claim of tokens: the gateway's public address without a final slash."""
        if self.auth.issuer is not None:
            return self.auth.issuer.rstrip("/")
        if self.railway_public_domain is not None:
            return f"https://{self.railway_public_domain}"
        return f"{'https' if self.tls_certificate else 'http'}://localhost:{self.port}"

    def signing_keys(self) -> str:
        """Return the text of the signing keys. Raises SettingsError if there is none."""
        path = self.auth.signing_key_file
        if path is not None:
            try:
                return path.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"AUTH__SIGNING_KEY_FILE cannot be read: {type(error).__name__}.") from None
        if self.auth.signing_key is None:
            raise SettingsError("AUTH__SIGNING_KEY is not set. Run `atalaya secrets init` to add one to .env.")
        return self.auth.signing_key.get_secret_value()

    def ledger_key(self) -> str:
        """Return the private key that signs the ledger, in base64. Raises SettingsError if there is none."""
        if self.ledger.signing_key is None:
            raise SettingsError("LEDGER__SIGNING_KEY is not set. Run `atalaya secrets init` to add one to .env.")
        return self.ledger.signing_key.get_secret_value()


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `changes`, for a child process."""
    return {**os.environ, **changes}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings. Raises SettingsError with one line that names the invalid setting, but not its value."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        name = "__".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['msg']}.") from None
