"""The protocol's metadata of the server and its model, for any caller who may predict."""

from __future__ import annotations

from importlib.metadata import version as get_version

from fastapi import APIRouter, Depends
from starlette.requests import Request

from api.deps import Caller
from api.http.problems import document_problems
from api.routes.v2.inputs import INPUT
from api.routes.v2.outputs import OUTPUTS, PROBABILITIES
from api.routes.v2.served import Name, find_model
from api.schemas.inference import ModelMetadata, ModelReady, ServerMetadata, TensorMetadata
from auth.principal import Scope
from model.backends.base import ModelInfo

_EXTENSIONS = ["binary_tensor_data", "classification"]

router = APIRouter(
    tags=["inference"],
    responses=document_problems(401, 403, 503),
    dependencies=[Depends(Caller(Scope.PREDICT))],
)
_MODEL_PROBLEMS = document_problems(404, 422)


@router.get("/v2")
async def describe_server() -> ServerMetadata:
    return ServerMetadata(name="atalaya", version=get_version("atalaya"), extensions=_EXTENSIONS)


@router.get("/v2/models/{model}", responses=_MODEL_PROBLEMS)
async def describe_model(request: Request, model: Name) -> ModelMetadata:
    """The input, which may also be BYTES with encoded images, and the outputs."""
    return _describe(find_model(request, model))


@router.get("/v2/models/{model}/versions/{version}", responses=_MODEL_PROBLEMS)
async def describe_version(request: Request, model: Name, version: Name) -> ModelMetadata:
    """The same as for the model."""
    return _describe(find_model(request, model, version))


@router.get("/v2/models/{model}/ready", responses=_MODEL_PROBLEMS)
async def show_model_ready(request: Request, model: Name) -> ModelReady:
    """Whether this model is in service."""
    return ModelReady(name=find_model(request, model).name, ready=True)


@router.get("/v2/models/{model}/versions/{version}/ready", responses=_MODEL_PROBLEMS)
async def show_version_ready(request: Request, model: Name, version: Name) -> ModelReady:
    """Whether this version is in service."""
    return ModelReady(name=find_model(request, model, version).name, ready=True)


def _describe(info: ModelInfo) -> ModelMetadata:
    height, width, channels = info.input_spec.shape
    return ModelMetadata(
        name=info.name,
        versions=[info.version],
        platform=info.backend,
        inputs=[TensorMetadata(name=INPUT, datatype="UINT8", shape=[-1, height, width, channels])],
        outputs=[
            TensorMetadata(
                name=name,
                datatype=output.datatype,
                shape=[-1, len(info.classes)] if name == PROBABILITIES else [-1],
            )
            for name, output in OUTPUTS.items()
        ],
        parameters={"digest": info.digest},
    )
