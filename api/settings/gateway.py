"""The settings of the gateway: those without a group, and what follows from several of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator

from api.errors import SettingsError
from api.http.addresses.host_names import check_allowed_host, host_name, read_listen_host
from api.settings.auth import AuthSettings
from api.settings.fields import Environment, split_commas
from api.settings.home import HomePath, resolve_database_url
from api.settings.limits import LimitSettings
from api.settings.logs import LogSettings
from api.settings.model import ModelSettings
from api.settings.quality.calendar import CalendarSettings
from api.settings.quality.canary import CanarySettings
from api.settings.railway import RAILWAY_HEALTH_CHECK, RailwaySettings
from api.settings.records import CostSettings, ImageSettings, LedgerSettings, MonitoringSettings
from api.settings.secrets.settings import SecretSettings
from api.settings.urls import (
    check_collector_url,
    check_database_url,
    check_sentry_dsn,
    parse_headers,
    read_origins,
    read_redis_url,
)

if TYPE_CHECKING:
    from model.signing.keys import PublicKey


class Settings(RailwaySettings):
    """The process, the network, the database, and where errors and traces are sent."""

    model_config = ConfigDict(frozen=True, validate_default=True, title="Gateway")

    environment: Environment = Field(
        Environment.DEVELOPMENT,
        description="Production refuses to start with a missing or weak secret or an unsigned model, hides the "
        "documentation pages, and tells browsers to use HTTPS.",
    )
    host: Annotated[str, AfterValidator(read_listen_host)] = Field(
        "127.0.0.1",
        description="The address to listen on: `127.0.0.1` for this machine only, `0.0.0.0` for every IPv4 address, "
        "`::` for every IPv4 and IPv6 address.",
    )
    port: int = Field(8000, ge=0, le=65535, description="The port that serves requests.")
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A second port that serves only `/metrics`, without authentication and without a check of the host "
        "name, on the address of `HOST`; for a private network only. Off when empty.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Host names that the gateway serves; `*.example.org` for the subdomains of example.org only; "
        "`*` for any. When empty: localhost, 127.0.0.1, [::1], and the host names of the issuer and of Railway. "
        "On Railway, the name in its health checks is always served.",
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description="Origins whose [pages may call the gateway](deploy/proxies.md#pages-of-other-sites) from a browser "
        "(CORS), such as `https://app.example.org`; `*` for any. Off when empty.",
    )
    keep_alive_seconds: int = Field(
        75,
        ge=1,
        le=3600,
        description="Seconds after which an idle connection is closed. Must be longer than the idle timeout of the "
        "load balancer in front, which is often 60; otherwise the load balancer would reuse a closed connection.",
    )
    idle_seconds: float = Field(
        60,
        ge=0,
        description="Seconds without a request after which the gateway closes its connections to databases and pauses "
        "what uses the network, so that a platform can let it sleep. Never if this is 0 or METRICS_PORT is set.",
    )
    drain_seconds: float = Field(
        2.0,
        ge=0,
        le=300,
        description="Seconds for which the gateway keeps serving after SIGTERM while it asks clients to move away. "
        "The shutdown takes up to 8 seconds more: configure the platform not to kill it earlier.",
    )
    tls_certificate: HomePath | None = Field(
        None, description="The certificate in PEM, to terminate TLS without a proxy. Off when empty."
    )
    tls_key: HomePath | None = Field(None, description="The private key of the certificate, in PEM.")
    tls_client_ca: HomePath | None = Field(
        None, description="The CA of [client certificates](security/identity-providers.md#mutual-tls). Off when empty."
    )
    web_concurrency: int = Field(
        1,
        ge=1,
        le=64,
        description="[Worker processes](deploy/processes.md#worker-processes) that share the port, the ledger, the "
        "limits and the metrics. At most one per core is useful.",
    )
    docs: bool | None = Field(
        None, description="Whether `/docs` and `/openapi.json` are served. When empty: only in development."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="The least severe level that is logged. Libraries never log below `info`, because their debug "
        "messages contain SQL parameters and forms.",
    )
    database_url: SecretStr = Field(
        SecretStr("sqlite:///var/atalaya.db"),
        description="`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`; see [databases](#databases).",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Shares the rate limits of all replicas: `redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER]`, "
        "`rediss://` for TLS, or `unix://PATH`; `?ssl=true` and `?family=` are accepted. When empty: each machine "
        "counts on its own.",
    )
    mlflow_tracking_username: str | None = Field(
        None,
        description="The user for the MLflow server in `MODEL__REGISTRY`, under the name that MLflow's clients read.",
    )
    mlflow_tracking_password: SecretStr | None = Field(None, description="The password of that user.")
    mlflow_tracking_token: SecretStr | None = Field(
        None, description="A token for the MLflow server, in place of the user and the password."
    )
    sentry_dsn: SecretStr | None = Field(
        None,
        description="Where unexpected errors are reported, without bodies, headers or tokens. Off when empty.",
    )
    sentry_sample_rate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="The share of errors that the gateway reports, at most 30 per minute and process.",
    )
    git_commit_sha: str | None = Field(
        None, description="The commit that is running, for the name of the release in error reports."
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description="Where [traces](operations.md#traces) are sent: a collector's address for OTLP over HTTP, without "
        "`/v1/traces`. Off when empty.",
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        None,
        description="Headers for the collector, such as a token: `NAME=VALUE,…`, with percent-encoded values.",
    )
    otel_service_name: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="The name of this service in traces and the log. When empty: `RAILWAY_SERVICE_NAME`, or `atalaya`.",
    )
    otel_traces_sampler_arg: float = Field(
        0.01, ge=0, le=1, description="The share of requests without a parent that are traced."
    )
    atalaya_shared: HomePath | None = Field(
        None,
        description="The folder that the workers of one machine share. The gateway sets it for its own workers; leave "
        "it empty.",
    )
    secrets: SecretSettings = Field(default_factory=SecretSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    canary: CanarySettings = Field(default_factory=CanarySettings)
    calendar: CalendarSettings = Field(default_factory=CalendarSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    monitoring: MonitoringSettings = Field(default_factory=MonitoringSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    images: ImageSettings = Field(default_factory=ImageSettings)
    cost: CostSettings = Field(default_factory=CostSettings)
    logs: LogSettings = Field(default_factory=LogSettings)

    _split_hosts = field_validator("allowed_hosts", mode="before")(split_commas)

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            check_allowed_host(name)
        return value

    _split_origins = field_validator("cors_origins", mode="before")(split_commas)

    @field_validator("cors_origins")
    @classmethod
    def _read_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return read_origins(value)

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
    def service_name(self) -> str:
        """The name of this service in traces and the log."""
        return self.otel_service_name or self.railway_service_name or "atalaya"

    @property
    def host_names(self) -> frozenset[str]:
        """The host names that the gateway serves: ALLOWED_HOSTS, or by default localhost and its known public names.

        On Railway, also the name in its health checks.
        """
        local = ("localhost", "127.0.0.1", "[::1]", urlsplit(self.issuer).netloc)
        names = self.allowed_hosts or (*local, *self.railway_domains)
        if self.on_railway:
            names = (*names, RAILWAY_HEALTH_CHECK)
        return frozenset(map(host_name, names))

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
            raise SettingsError(self.secrets.describe_missing("AUTH__SIGNING_KEY"))
        return self.auth.signing_key.get_secret_value()

    def ledger_key(self) -> str:
        """Return the private key that signs the ledger, in base64. Raises SettingsError if there is none."""
        if self.ledger.signing_key is None:
            raise SettingsError(self.secrets.describe_missing("LEDGER__SIGNING_KEY"))
        return self.ledger.signing_key.get_secret_value()
