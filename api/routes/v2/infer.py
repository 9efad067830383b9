"""Inference routes of the protocol: the images of one body go through the same pipeline as every prediction."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.deps import get_pipeline, get_services
from api.http.problems import document_problems
from api.http.uploads import get_declared_length, read_body, wait_for_disconnect
from api.prediction.request import BatchBody, ImageBatch, PredictionRequest
from api.routes.predictions import Predictor
from api.routes.recorded.recorded_route import RecordedRoute, describe_origin, read_authenticated, recorded_by_pipeline
from api.routes.v2.inputs import parse_images
from api.routes.v2.outputs import choose_outputs
from api.routes.v2.served import Name, find_model, is_model
from api.routes.v2.wire import LENGTH_HEADER, estimate_parsing_bytes, write_response
from api.schemas.inference import INFER_REQUEST_SCHEMA, InferResponse
from auth.principal import Principal
from model.errors import ModelReplaced
from monitoring.tracing.tracer import RequestTrace

_BINARY = "application/octet-stream"
_BINARY_SCHEMA = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"JSON, or JSON followed by the values of the input with its length in `{LENGTH_HEADER}`",
        "content": {"application/json": {"schema": INFER_REQUEST_SCHEMA}, _BINARY: _BINARY_SCHEMA},
    }
}
_BINARY_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"JSON, or JSON followed by the binary values of outputs, with its length in `{LENGTH_HEADER}`",
        "content": {_BINARY: _BINARY_SCHEMA},
    }
}
_PROBLEMS = document_problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504)

router = APIRouter(tags=["inference"], responses=_PROBLEMS | _BINARY_RESPONSE, route_class=RecordedRoute)


@router.post("/v2/models/{model}/infer", openapi_extra=_BODY, response_model=InferResponse)
async def infer(request: Request, principal: Predictor, model: Name) -> Response:
    """Classify up to 8 images, decoded or encoded, with the model in service."""
    return await _infer(_ReceivedRequest(request, principal, model))


@router.post("/v2/models/{model}/versions/{version}/infer", openapi_extra=_BODY, response_model=InferResponse)
async def infer_version(request: Request, principal: Predictor, model: Name, version: Name) -> Response:
    """Classify up to 8 images with this version, even while a candidate is tried on other requests."""
    return await _infer(_ReceivedRequest(request, principal, model, version))


class _ReceivedRequest:
    """Reads a request for the pipeline, and keeps what the response depends on."""

    def __init__(self, request: Request, principal: Principal, model: str, version: str | None = None) -> None:
        self.request = request
        self.model = model
        self.version = version
        self._principal = principal

    def describe(self) -> PredictionRequest[BatchBody]:
        trace: RequestTrace | None = self.request.scope["state"].get("trace")
        return PredictionRequest(
            origin=describe_origin(self.request, self._principal),
            read_body=self._read,
            content_length=get_declared_length(self.request),
            joins_trial=self.version is None,
            wait_for_disconnect=partial(wait_for_disconnect, self.request),
            on_stage=trace.add_stage if trace else None,
        )

    async def _read(self) -> BatchBody:
        body, header = await read_authenticated(read_body, self.request), self.request.headers.get(LENGTH_HEADER)
        return BatchBody(len(body), estimate_parsing_bytes(header, len(body)), partial(self._parse, header, body))

    async def _parse(self, header: str | None, body: bytes) -> ImageBatch:
        """Raises BadInferRequest, RateLimitExceeded, ModelNotServed."""
        document, batch = parse_images(header, body)
        self.id, self.outputs = document.id, choose_outputs(document)
        find_model(self.request, self.model, self.version)  # the model may have been replaced during the upload
        if more := len(batch.images) - 1:  # the request itself has counted as one prediction
            await get_services(self.request).runtime.limits.check_predictions(self.request, more)
        return batch


async def _infer(received: _ReceivedRequest) -> Response:
    find_model(received.request, received.model, received.version)
    with recorded_by_pipeline():
        pipeline = get_pipeline(received.request)
        results = await pipeline.run_batch(received.describe())
        info = results[0].prediction.model
        if not is_model(info, received.model, received.version):
            raise ModelReplaced
        tensors = [(choice.build(results), choice.is_binary) for choice in received.outputs]
        body, headers = write_response(info.name, info.version, received.id, tensors)
        return Response(body, headers=headers)
