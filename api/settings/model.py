"""The settings MODEL__…"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from api.settings.fields import SettingsGroup
from api.settings.home import (
    HomePath,
    read_mlflow_address,
    resolve_artefact,
    resolve_model_url,
    resolve_program,
    resolve_registry_url,
)
from model.backends.oip.address import SCHEMES as ENGINE_SCHEMES
from model.backends.oip.address import parse_address
from model.confidence.policy import AbstentionPolicy
from model.errors import BackendURLError
from model.registry.errors import InvalidName
from model.registry.reference import ModelReference, parse_reference


class Fallback(StrEnum):
    NONE = "none"
    LOCAL = "local"


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
        "[MLflow server](models/mlflow.md). `MODEL__URL` can then name a version in it by an alias.",
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
        "[follows the alias](models.md#serve-from-a-registry); `@production` may be left out), "
        "`oip+http://HOST[:PORT][,HOST…]/MODEL[/VERSION]` or `oip+https://…` for [inference "
        "engines](deploy/scale.md#put-an-engine-behind-the-gateway), `keras://FOLDER` "
        "(development) or `stub://` (no model, for [testing clients](#a-gateway-without-a-model)).",
    )
    verify_key: Annotated[str, AfterValidator(_check_verify_key)] | None = Field(
        None,
        description="The public key that must have [signed the artefact](models/sign.md): in PEM, or the "
        "line that `atalaya models sign` prints. When empty: in production the key of the shipped artefacts, in "
        "development none.",
    )
    prepare: bool = Field(
        True,
        description="Whether the gateway builds and uses a "
        "[copy of the model for this machine](deploy/processes.md#the-prepared-copy-of-the-model).",
    )
    prepared_folder: HomePath = Field(
        Path("var/prepared"),
        description="Where these copies are kept: a folder for this gateway alone, which only its user can enter.",
    )
    manifest: Annotated[Path, AfterValidator(resolve_artefact)] = Field(
        Path("artifacts/efficientnetb0-v1.1"),
        description="With `oip+http://`: the artefact folder whose manifest describes the engines' model: its "
        "classes, calibration and gate.",
    )
    fallback: Fallback = Field(
        Fallback.NONE,
        description="With `oip+http://`, while no engine works: `none` rejects requests with 503, `local` predicts "
        "with the model in `MODEL__MANIFEST`, which then takes memory at all times.",
    )
    engine_requests: int = Field(
        16,
        ge=1,
        le=1024,
        description="The maximum number of requests that a worker process has in flight on one engine.",
    )
    engine_token: SecretStr | None = Field(None, description="A bearer token that the engines require.")
    engine_ca: HomePath | None = Field(
        None,
        description="With `oip+https://`: the certificates, in PEM, that sign those of the engines. When empty: those "
        "that the system trusts.",
    )
    engine_certificate: HomePath | None = Field(
        None, description="The certificate, in PEM, with which the gateway authenticates to the engines (mTLS)."
    )
    engine_key: HomePath | None = Field(None, description="The file with the private key of that certificate.")
    batch: int = Field(
        1,
        ge=1,
        le=64,
        description="How many waiting images go to an engine at once, with `oip+http://` and `onnx+cuda://`; a CPU "
        "computes them no faster together. `MODEL__WORKERS` must be at least as large.",
    )
    batch_linger_ms: float = Field(
        2.0, ge=0, le=100, description="How many milliseconds an image waits for others while the engines are busy."
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Inference threads of each worker process. When empty: the process's share of the processors that "
        "the CPU affinity and the container's quota allow, as far as the threads fit in memory (40 MB each); 16 "
        "with `oip+http://`, as these threads wait for the engines.",
    )
    queue_limit: int = Field(64, ge=0, le=10_000, description="How many predictions may wait; further ones get 503.")
    queue_seconds: float = Field(
        2.0,
        gt=0,
        le=60,
        description="The maximum estimated wait in seconds; a request that would wait longer gets 503.",
    )
    deadline_seconds: float = Field(
        30.0, gt=0, le=300, description="The default and the maximum of `X-Request-Timeout`, in seconds."
    )
    stuck_seconds: float = Field(
        20.0,
        ge=1,
        le=600,
        description="How long decoding and inference of one image may take, in seconds. Beyond that the gateway "
        "[replaces the process](runbooks/availability.md#atalayaworkerstuck). A prediction waits for inference engines "
        "for at most half as long.",
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
        description="Memory for images in progress. When empty: what remains of the container's limit after the "
        "process itself, less 80 MB with an MLflow server.",
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

    @model_validator(mode="after")
    def _check_engines(self) -> Self:
        scheme = self.url.partition("://")[0]
        if scheme in ENGINE_SCHEMES:
            try:
                parse_address(self.url)
            except BackendURLError as error:
                raise ValueError(f"MODEL__URL: {error}") from None
        if self.batch > 1 and scheme not in (*ENGINE_SCHEMES, "onnx+cuda"):
            raise ValueError("MODEL__BATCH: only engines (oip+http://) and onnx+cuda:// compute batches faster. Use 1")
        if (self.engine_certificate is None) != (self.engine_key is None):
            raise ValueError("MODEL__ENGINE_CERTIFICATE and MODEL__ENGINE_KEY must both be set, or neither")
        return self

    @property
    def uses_engines(self) -> bool:
        """Whether inference engines compute the predictions."""
        return self.url.partition("://")[0] in ENGINE_SCHEMES

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
        """Whether the registry's folder mirrors a server, which alone decides where aliases point."""
        return self.mlflow_url is not None

    @property
    def registry_folder(self) -> Path | None:
        """The folder of the registry, or of the mirror of a server's registry; None without a registry."""
        if self.registry is None:
            return None
        return Path(self.registry.partition("://")[2]) if self.mlflow_url is None else self.mirror_folder
