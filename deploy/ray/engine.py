"""The model on Ray Serve, as an engine for gateways: `serve run deploy.ray.engine:build artefact=FOLDER`.

It speaks version 2 of the Open Inference Protocol, with JSON and binary tensors. It does not decode images, record
predictions or authenticate callers, so only gateways should be able to reach it.
"""

# Ray copies the routes when the class is defined: annotations must be objects, and functions defined before the class.
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from fastapi import FastAPI
from numpy.typing import NDArray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.errors import BadInferRequest, ModelNotServed
from api.routes.v2.wire import LENGTH_HEADER, Tensor, parse_request, read_bytes_of_pixels, write_response
from api.schemas.inference import InferRequest
from model.backends.base import ModelInfo
from model.backends.open import open_warm

INPUT = "image"
OUTPUTS = ("probabilities", "pooled")
MAX_IMAGES = 64
# A replica computes one request at a time, on one core. Ray starts further replicas while more requests wait.
_ONGOING_REQUESTS = 2

app = FastAPI(title="Atalaya's model on Ray Serve", openapi_url=None)


@app.exception_handler(BadInferRequest)
@app.exception_handler(ModelNotServed)
async def reject(_: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, ModelNotServed) else 400
    return JSONResponse({"error": str(error)}, status)


def read_pixels(document: InferRequest, binary: memoryview, info: ModelInfo) -> NDArray[np.uint8]:
    """Return the images of a request, uint8 [n, height, width, 3]. Raises BadInferRequest."""
    tensor = document.inputs[0]
    count, *sides = tensor.shape
    is_input = len(document.inputs) == 1 and (tensor.name, tensor.datatype) == (INPUT, "UINT8")
    if not is_input or tuple(sides) != info.input_spec.shape or not 1 <= count <= MAX_IMAGES:
        expected = ", ".join(map(str, info.input_spec.shape))
        raise BadInferRequest(f"Send one input, {INPUT}, UINT8 [n, {expected}] with up to {MAX_IMAGES} images.")
    return np.frombuffer(read_bytes_of_pixels(tensor, binary), np.uint8).reshape(tensor.shape)


def choose_outputs(document: InferRequest) -> Sequence[tuple[str, bool]]:
    """Return the names of the requested outputs, and whether each is to be binary. Raises BadInferRequest."""
    is_binary = document.parameters.get("binary_data_output") is True
    if document.outputs is None:
        return [(name, is_binary) for name in OUTPUTS]
    if not {output.name for output in document.outputs} <= set(OUTPUTS):
        raise BadInferRequest(f"There is no such output. Request some of {', '.join(OUTPUTS)}.")
    return [(output.name, output.parameters.get("binary_data", is_binary) is True) for output in document.outputs]


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=2 * _ONGOING_REQUESTS)
@serve.ingress(app)
class Engine:
    """One replica, with one model in memory. Raises ArtefactError."""

    def __init__(self, artefact: str) -> None:
        self._backend = open_warm(f"onnx://{artefact}")
        blank = np.zeros((1, *self._backend.info.input_spec.shape), np.uint8)
        self._channels = self._backend.predict_pooled(blank)[1].shape[1]

    @app.get("/v2/health/live")
    async def show_live(self) -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def show_ready(self) -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2")
    async def describe_server(self) -> dict[str, object]:
        return {"name": "atalaya-ray", "version": ray.__version__, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/models/{model}")
    @app.get("/v2/models/{model}/versions/{version}")
    async def describe_model(self, model: str, version: str | None = None) -> dict[str, object]:
        info = self._find_model(model, version)
        return {
            "name": info.name,
            "versions": [info.version],
            "platform": info.backend,
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *info.input_spec.shape]}],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(info.classes)]},
                {"name": "pooled", "datatype": "FP32", "shape": [-1, self._channels]},
            ],
            "parameters": {"digest": info.digest},
        }

    @app.get("/v2/models/{model}/ready")
    @app.get("/v2/models/{model}/versions/{version}/ready")
    async def show_model_ready(self, model: str, version: str | None = None) -> dict[str, object]:
        return {"name": self._find_model(model, version).name, "ready": True}

    @app.post("/v2/models/{model}/infer")
    @app.post("/v2/models/{model}/versions/{version}/infer")
    async def infer(self, request: Request, model: str, version: str | None = None) -> Response:
        info = self._find_model(model, version)
        document, binary = parse_request(request.headers.get(LENGTH_HEADER), await request.body())
        pixels = read_pixels(document, binary, info)
        values = dict(zip(OUTPUTS, await asyncio.to_thread(self._backend.predict_pooled, pixels), strict=True))
        tensors = [
            (Tensor(name, "FP32", values[name].shape, values[name]), is_binary)
            for name, is_binary in choose_outputs(document)
        ]
        body, headers = write_response(info.name, info.version, document.id, tensors)
        return Response(body, headers=headers)

    def _find_model(self, name: str, version: str | None) -> ModelInfo:
        info = self._backend.info
        if info.name != name or version not in (None, info.version):
            raise ModelNotServed(info.name, info.version)
        return info


def build(arguments: dict[str, str]) -> serve.Application:
    """Build the application for the model in the folder `artefact`, with `min_replicas` to `max_replicas` replicas."""
    cores = os.cpu_count() or 1
    scaling = {
        "min_replicas": int(arguments.get("min_replicas", "1")),
        "max_replicas": int(arguments.get("max_replicas", cores)),
        "target_ongoing_requests": _ONGOING_REQUESTS,
    }
    artefact = str(Path(arguments["artefact"]).absolute())
    deployment: serve.Deployment = Engine  # what the decorators make of the class
    return deployment.options(autoscaling_config=scaling).bind(artefact)
