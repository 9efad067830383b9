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


class ModelSettings(SettingsGroup, title="Model"):
    """Which model is served, and what it may use: [models](models.md)."""

    registry: Annotated[str, AfterValidator(resolve_registry_url)] | None = Field(
        None,
        description="`file://FOLDER` of a [registry of models](models.md#serve-from-a-registry), or "
        "`mlflow+http://HOST[:PORT]` or `mlflow+https://HOST[:PORT]` of an "
        "[MLflow server](models.md#serve-from-mlflow). `MODEL__URL` can then name a version in it by an alias.",
    )
    mirror_folder: HomePath = Field(
        Path("var/mirror"),
        description="Where the gateway keeps its copies of the versions of an MLflow server; use a disk that survives "
        "a restart.",
    )
    url: Annotated[str, AfterValidator(resolve_model_url)] = Field(
        "onnx://artifacts/efficientnetb0-v1.1",
        description="`onnx://FOLDER` of an artefact, `onnx+cuda://FOLDER` or `onnx+openvino://FOLDER` for "
        "[another engine](performance.md#other-engines), `registry://NAME@ALIAS` (the gateway "
        "[follows the alias](models.md#serve-from-a-registry); `@production` may be left out), `keras://FOLDER` "
        "(development) or `stub://` (no model, for [testing clients](#a-gateway-without-a-model)).",
    )
    verify_key: Annotated[str, AfterValidator(_check_verify_key)] | None = Field(
        None,
        description="The public key that must have [signed the artefact](models.md#sign-an-artefact): in PEM, or the "
        "line that `atalaya models sign` prints. When empty: in production the key of the shipped artefacts, in "
        "development none.",
    )
    prepare: bool = Field(
        True,
        description="Whether the gateway opens, and builds, a "
        "[copy of the model for this machine](deploy/processes.md#the-prepared-copy-of-the-model).",
    )
    prepared_folder: HomePath = Field(
        Path("var/prepared"),
        description="Where these copies are: a folder of this gateway alone, which only its user can enter.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Inference threads of each worker process. When empty: the process's share of the processors that "
        "the CPU affinity and the container's quota allow, as far as the memory limit carries them (40 MB each).",
    )
    queue_limit: int = Field(64, ge=0, le=10_000, description="How many predictions may wait; further ones get 503.")
    queue_seconds: float = Field(
        2.0,
        gt=0,
        le=60,
        description="The longest estimated wait in seconds; a request that would wait longer gets 503.",
    )
    deadline_seconds: float = Field(
        30.0, gt=0, le=300, description="The default and the maximum of `X-Request-Timeout`, in seconds."
    )
    stuck_seconds: float = Field(
        20.0,
        ge=1,
        le=600,
        description="How long decoding and inference of one image may take, in seconds. Beyond that the gateway "
        "[replaces the process](runbooks/availability.md#atalayaworkerstuck).",
    )
    abstain: AbstentionPolicy = Field(
        AbstentionPolicy.MARK,
        description="What happens when the model [abstains](api.md#when-the-model-abstains), because the image is not "
        "aerial or the confidence is low: `mark` says so in the response, `refuse` responds with 422, `off` never "
        "abstains.",
    )
    memory_megabytes: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Memory for images in progress. When empty: what the container's limit leaves beside the process "
        "itself, less 80 MB with an MLflow server.",
    )
    keras_python: Annotated[str, AfterValidator(resolve_program)] | None = Field(
        None,
        description="The Python with TensorFlow, for `train` and `export`. When empty: `.venv-keras`, which "
        "`make keras` creates.",
    )

    validation_data: HomePath | None = Field(
        None,
        description="The folder of labelled images on which `atalaya evaluate --served` "
        "[evaluates the served model](quality.md#evaluation), with a folder for each class, or with such folders in "
        "test/.",
    )

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
