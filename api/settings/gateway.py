"""The settings of the gateway: those without a group, and what follows from several of them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from api.errors import SettingsError
from api.http.host_names import check_allowed_host, host_name
from api.settings.auth import AuthSettings
from api.settings.canary import CanarySettings
from api.settings.fields import split_commas
from api.settings.home import HomePath, resolve_database_url
from api.settings.limits import LimitSettings
from api.settings.logs import LogSettings
from api.settings.model import ModelSettings
from api.settings.records import LedgerSettings, MonitoringSettings
from api.settings.urls import check_collector_url, check_database_url, check_sentry_dsn, parse_headers, read_redis_url

if TYPE_CHECKING:
    from model.signing.keys import PublicKey


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Settings(BaseModel):
    """The values and their defaults; `load_settings` reads them."""

    model_config = ConfigDict(frozen=True, validate_default=True)

    environment: Environment = Environment.DEVELOPMENT
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    metrics_port: int | None = Field(None, ge=1, le=65535)
    database_url: SecretStr = SecretStr("sqlite:///var/atalaya.db")
    redis_url: SecretStr | None = None
    sentry_dsn: SecretStr | None = None
    otel_exporter_otlp_endpoint: str | None = None
    otel_exporter_otlp_headers: SecretStr | None = None
    otel_service_name: str = Field("atalaya", min_length=1, max_length=255)
    otel_traces_sampler_arg: float = Field(0.01, ge=0, le=1)
    sentry_sample_rate: float = Field(1.0, ge=0, le=1)
    git_commit_sha: str | None = None
    railway_git_commit_sha: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    docs: bool | None = None
    web_concurrency: int = Field(1, ge=1, le=64)
    drain_seconds: float = Field(2.0, ge=0, le=300)
    # Longer than the idle time-outs of usual load balancers (60 s), which would otherwise reuse a closed connection.
    keep_alive_seconds: int = Field(75, ge=1, le=3600)
    # The directory that the workers of one machine share. The gateway sets it for its own workers.
    atalaya_shared: HomePath | None = None
    allowed_hosts: tuple[str, ...] = ()
    tls_certificate: HomePath | None = None
    tls_key: HomePath | None = None
    tls_client_ca: HomePath | None = None
    # The names that MLflow's own clients read.
    mlflow_tracking_username: str | None = None
    mlflow_tracking_password: SecretStr | None = None
    mlflow_tracking_token: SecretStr | None = None
    railway_public_domain: str | None = None
    railway_private_domain: str | None = None
    railway_environment_id: str | None = None
    railway_volume_mount_path: str | None = None
    auth: AuthSettings = Field(default_factory=AuthSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    canary: CanarySettings = Field(default_factory=CanarySettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    monitoring: MonitoringSettings = Field(default_factory=MonitoringSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    logs: LogSettings = Field(default_factory=LogSettings)

    _split_hosts = field_validator("allowed_hosts", mode="before")(split_commas)

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            check_allowed_host(name)
        return value

    @field_validator("database_url")
    @classmethod
    def _read_database_url(cls, value: SecretStr) -> SecretStr:
        check_database_url(value.get_secret_value())
        return SecretStr(resolve_database_url(value.get_secret_value()))

    @field_validator("redis_url")
    @classmethod
    def _translate_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(read_redis_url(value.get_secret_value()))

    @field_validator("sentry_dsn")
    @classmethod
    def _check_sentry_dsn(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_sentry_dsn(value.get_secret_value())
        return value

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            check_collector_url(value)
        return value

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def _check_headers(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_headers(value.get_secret_value())
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

    def artefact_key(self) -> PublicKey | None:
        """Return the key that must have signed the artefact, or None if it need not be signed.

        In production it must be signed, by default with the key of the artefacts that come with this code.
        """
        from model.signing.keys import RELEASE_KEY, read_public_key

        text = self.model.verify_key or (RELEASE_KEY if self.in_production else None)
        return None if text is None else read_public_key(text)

    def signing_keys(self) -> str:
        """Return the text of the signing keys. Raises SettingsError if there is none."""
        path = self.auth.signing_key_file
        if path is not None:
            try:
                return path.read_text()
            except OSError as error:
                raise SettingsError(f"AUTH__SIGNING_KEY_FILE: {path} cannot be read: {error.strerror}.") from None
            except UnicodeDecodeError:
                raise SettingsError(f"AUTH__SIGNING_KEY_FILE: {path} is not a text file.") from None
        if self.auth.signing_key is None:
            raise SettingsError("AUTH__SIGNING_KEY is not set. Run `atalaya secrets init` to add one to .env.")
        return self.auth.signing_key.get_secret_value()

    def ledger_key(self) -> str:
        """Return the private key that signs the ledger, in base64. Raises SettingsError if there is none."""
        if self.ledger.signing_key is None:
            raise SettingsError("LEDGER__SIGNING_KEY is not set. Run `atalaya secrets init` to add one to .env.")
        return self.ledger.signing_key.get_secret_value()
