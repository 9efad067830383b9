"""The settings MODEL__…"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from api.settings.fields import SettingsGroup
from api.settings.home import (
    HomePath,
    read_mlflow_address,
    resolve_model_url,
    resolve_program,
    resolve_registry_url,
)
from model.confidence.policy import AbstentionPolicy
from model.registry.errors import InvalidName
from model.registry.reference import ModelReference, parse_reference


def _check_verify_key(value: str) -> str:
    """Raises ValueError."""
    # Only few commands need cryptography, which takes time to import.
    from model.signing.errors import SigningKeyRejected
    from model.signing.keys import read_public_key

    try:
        read_public_key(value)
    except SigningKeyRejected as error:
        raise ValueError(f"must be the public key that verifies signatures of artefacts. {error}") from None
    return value


class ModelSettings(SettingsGroup):
    registry: Annotated[str, AfterValidator(resolve_registry_url)] | None = None
    mirror_folder: HomePath = Path("var/mirror")
    url: Annotated[str, AfterValidator(resolve_model_url)] = "onnx://artifacts/efficientnetb0-v1.1"
    verify_key: Annotated[str, AfterValidator(_check_verify_key)] | None = None
    prepare: bool = True
    prepared_folder: HomePath = Path("var/prepared")
    workers: int | None = Field(None, ge=1, le=64)
    queue_limit: int = Field(64, ge=0, le=10_000)
    queue_seconds: float = Field(2.0, gt=0, le=60)
    deadline_seconds: float = Field(30.0, gt=0, le=300)
    stuck_seconds: float = Field(20.0, ge=1, le=600)
    abstain: AbstentionPolicy = AbstentionPolicy.MARK
    memory_megabytes: int | None = Field(None, ge=1, le=1_000_000)
    keras_python: Annotated[str, AfterValidator(resolve_program)] | None = None

    @field_validator("url")
    @classmethod
    def _check_reference(cls, value: str, info: ValidationInfo) -> str:
        try:
            reference = parse_reference(value)
        except InvalidName:
            raise ValueError("must be registry://NAME@ALIAS, such as registry://efficientnetb0@production") from None
        if reference is not None and info.data.get("registry", "") is None:
            raise ValueError("names a model of a registry, so MODEL__REGISTRY must be set")
        return value

    @property
    def reference(self) -> ModelReference | None:
        """What `url` names in the registry; None for a URL of another scheme."""
        return parse_reference(self.url)

    @property
    def mlflow_url(self) -> str | None:
        """The address of the MLflow server that `registry` names; None for a registry in a folder."""
        return None if self.registry is None else read_mlflow_address(self.registry)

    @property
    def is_mirrored(self) -> bool:
        """Whether the registry's folder mirrors a server, which alone decides what aliases name."""
        return self.mlflow_url is not None

    @property
    def registry_folder(self) -> Path | None:
        """The folder of the registry, or of the mirror of the one that a server has; None without a registry."""
        if self.registry is None:
            return None
        return Path(self.registry.partition("://")[2]) if self.mlflow_url is None else self.mirror_folder
