"""The documents of the Open Inference Protocol, version 2.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.schemas.base import ResponseBody

_Name = Annotated[str, Field(max_length=200)]


def _check_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Check the types. A union of types would report four errors for each wrong value, without a limit."""
    if not all(isinstance(value, bool | int | float | str) for value in parameters.values()):
        raise ValueError("a parameter must be a boolean, a number or a string")
    return parameters


_Parameters = Annotated[dict[str, Any], AfterValidator(_check_parameters)]
_Side = Annotated[int, Field(ge=0, le=1 << 31)]


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, defer_build=True)


class InferInput(_Document):
    """A tensor. Its values are in `data`, or follow the JSON document if there is a parameter `binary_data_size`."""

    name: _Name
    shape: Annotated[list[_Side], Field(min_length=1, max_length=8)]
    datatype: _Name
    parameters: _Parameters = {}
    data: Any = None


class InferOutput(_Document):
    name: _Name
    parameters: _Parameters = {}


class InferRequest(_Document):
    id: str = Field(default="", max_length=1000)
    parameters: _Parameters = {}
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[InferOutput], Field(max_length=32)] | None = None


# Written by hand, because deriving it would build the validator of InferRequest at each start.
_PARAMETERS_SCHEMA = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "integer", "number", "string"]},
}
_INPUT_SCHEMA = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"const": "image"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 4},
        "datatype": {"enum": ["UINT8", "BYTES"], "description": "UINT8 for pixels, BYTES for encoded images"},
        "parameters": _PARAMETERS_SCHEMA,
        "data": {"type": "array", "description": "integers, or files in base64; absent for binary values"},
    },
}
_OUTPUT_SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS_SCHEMA},
}
INFER_REQUEST_SCHEMA = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 1000},
        "parameters": _PARAMETERS_SCHEMA,
        "inputs": {"type": "array", "items": _INPUT_SCHEMA, "minItems": 1, "maxItems": 1},
        "outputs": {"type": "array", "items": _OUTPUT_SCHEMA, "maxItems": 32},
    },
}


class Live(ResponseBody):
    live: bool


class Ready(ResponseBody):
    ready: bool


class ModelReady(ResponseBody):
    name: str
    ready: bool


class ServerMetadata(ResponseBody):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(ResponseBody):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 is the number of images")


class ModelMetadata(ResponseBody):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata] = Field(description="the input may also be BYTES [-1], with encoded images")
    outputs: list[TensorMetadata]
    parameters: dict[str, str] = Field(description="`digest`: the SHA-256 of the model file")


class OutputTensor(TensorMetadata):
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = Field(default=None, description="absent if the values follow the document")


class InferResponse(ResponseBody):
    model_name: str
    model_version: str
    id: str | None = Field(default=None, description="that of the request")
    outputs: list[OutputTensor]
