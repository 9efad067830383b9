"""Every setting, its default and its meaning: the only reader of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.errors import SettingsError

Rate = Annotated[str, Field(pattern=r"^\d+/(\d+ ?)?(second|minute|hour|day)s?$")]


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class _Room(BaseModel):
    # A mistyped name must not pass for a setting.
    model_config = ConfigDict(extra="forbid", frozen=True)


class AuthSettings(_Room):
    signing_algorithm: Literal["ES256", "HS256"] = "ES256"
    signing_key: SecretStr | None = None
    signing_key_file: Path | None = None
    issuer: str | None = None
    audience: str = "atalaya"
    access_token_seconds: int = Field(900, ge=60, le=3600)
    session_seconds: int = Field(30 * 86_400, ge=3600)
    password_grant: bool = True


class ModelSettings(_Room):
    url: str = "onnx://artifacts/efficientnetb0-v1.0"
    workers: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, le=64)
    queue_limit: int = Field(64, ge=0, le=10_000)
    keras_python: str | None = None


class LimitSettings(_Room):
    predict: Rate = "10000/minute"
    token: Rate = "30/minute"  # noqa: S105  (a rate)
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Settings(BaseSettings):
    """Read from the environment, then from `.env` in the working directory, then the defaults here."""

    model_config = SettingsConfigDict(
        env_file=".env", env_nested_delimiter="__", extra="ignore", frozen=True, env_ignore_empty=True
    )

    environment: Environment = Environment.DEVELOPMENT
    port: int = Field(8000, ge=0, le=65535)
    metrics_port: int | None = Field(None, ge=1, le=65535)
    database_url: SecretStr = SecretStr("sqlite:///var/atalaya.db")
    sentry_dsn: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    docs: bool | None = None
    railway_public_domain: str | None = None
    auth: AuthSettings = AuthSettings()
    model: ModelSettings = ModelSettings()
    limits: LimitSettings = LimitSettings()

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def in_production(self) -> bool:
        return self.environment is Environment.PRODUCTION

    @property
    def docs_enabled(self) -> bool:
        """The interactive documentation, off in production unless asked for."""
        return not self.in_production if self.docs is None else self.docs

    @property
    def issuer(self) -> str:
        """Who signs the tokens: the address that callers know the gateway by, without a final slash."""
        if self.auth.issuer is not None:
            return self.auth.issuer.rstrip("/")
        if self.railway_public_domain is not None:
            return f"https://{self.railway_public_domain}"
        return f"http://localhost:{self.port}"

    def signing_keys(self) -> str:
        """The text of the signing keys. Raises SettingsError when it is missing."""
        path = self.auth.signing_key_file
        if path is not None:
            try:
                return path.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"AUTH__SIGNING_KEY_FILE cannot be read: {type(error).__name__}.") from None
        if self.auth.signing_key is None:
            raise SettingsError("AUTH__SIGNING_KEY is not set. Run `atalaya secrets init` to write one into .env.")
        return self.auth.signing_key.get_secret_value()


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for a child of it, with `changes`."""
    return {**os.environ, **changes}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings. Raises SettingsError with one line that names the setting at fault, never its value."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        name = "__".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['msg']}.") from None
