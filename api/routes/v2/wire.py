"""Bodies of the protocol: a JSON document, optionally followed by binary tensor values (the binary data extension)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from api.errors import BadInferRequest
from api.http.body_limits import parse_length
from api.schemas.fields import describe_invalid, name_location
from api.schemas.inference import InferInput, InferRequest

LENGTH_HEADER = "Inference-Header-Content-Length"
# A decoded image of 256x256 pixels as text, with spaces and brackets: 65,794 lists.
MAX_DOCUMENT_BYTES = 1_250_000
# Lists and objects take most of the memory and of the parsing time, during which the event loop is blocked. A thread
# would block it as well, by holding the GIL.
_MAX_LISTS, _MAX_OBJECTS = 67_000, 1_000
# The memory to parse a document, per byte.
_PARSED_BYTES = 30
_MAX_DEPTH = 4  # [n, height, width, 3]
_LENGTH = struct.Struct("<I")


class Tensor(Struct, frozen=True):
    """A tensor of a response: FP32, BOOL or BYTES, whose elements are text. `values` are in C order."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: NDArray[np.float32] | Sequence[bool] | Sequence[str]

    def to_json(self) -> list[Any]:
        return self.values.ravel().tolist() if isinstance(self.values, np.ndarray) else list(self.values)

    def to_binary(self) -> bytes:
        match self.datatype:
            case "FP32":
                return np.asarray(self.values, "<f4").tobytes()
            case "BOOL":
                return np.asarray(self.values, np.bool_).tobytes()
        return b"".join(_LENGTH.pack(len(text)) + text for text in (str(value).encode() for value in self.values))


def parse_request(header: str | None, body: bytes) -> tuple[InferRequest, memoryview]:
    """Split a body into its document and the binary values. `header` is its LENGTH_HEADER, None for JSON alone.

    Raises BadInferRequest.
    """
    length = len(body) if header is None else _parse_length(header, len(body))
    if length > MAX_DOCUMENT_BYTES:
        raise BadInferRequest(
            f"The JSON document may have at most {MAX_DOCUMENT_BYTES} bytes. Send the values as binary data after it, "
            f"with {LENGTH_HEADER}."
        )
    return _parse_document(body[:length]), memoryview(body)[length:]


def estimate_parsing_bytes(header: str | None, body_bytes: int) -> int:
    """Return the memory in bytes to parse the document of a body.

    It is 0 for a header that is not a number: `parse_request` rejects it before it parses the document.
    """
    length = body_bytes if header is None else parse_length(header) or 0
    return _PARSED_BYTES * min(length, body_bytes, MAX_DOCUMENT_BYTES)


def _parse_length(header: str, body_bytes: int) -> int:
    length = parse_length(header)
    if length is None or length > body_bytes:
        raise BadInferRequest(
            f"{LENGTH_HEADER} must be the bytes of the JSON document, at most those of the body ({body_bytes})."
        )
    return length


def _parse_document(text: bytes) -> InferRequest:
    if text.count(b"[") > _MAX_LISTS or text.count(b"{") > _MAX_OBJECTS:
        raise BadInferRequest(
            f"The JSON document may have at most {_MAX_LISTS} lists and {_MAX_OBJECTS} objects. Send the values as one "
            "list, or as binary data."
        )
    try:
        return InferRequest.model_validate(from_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadInferRequest(f"{name_location(first) or 'body'}: {describe_invalid(first)}.") from None
    except ValueError as error:
        raise BadInferRequest(f"The body is not JSON: {error}.") from None


def take_binary(tensor: InferInput, binary: memoryview) -> memoryview | None:
    """Return the binary values of the only input, None if it has `data` instead. Raises BadInferRequest."""
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if binary:
            raise BadInferRequest(f"{len(binary)} bytes follow the JSON document. Set binary_data_size in the input.")
        return None
    if tensor.data is not None:
        raise BadInferRequest("The input has both `data` and binary_data_size. Send one of them.")
    if type(size) is not int or size != len(binary):
        raise BadInferRequest(f"binary_data_size must be the bytes that follow the JSON document ({len(binary)}).")
    return binary


def read_bytes_of_pixels(tensor: InferInput, binary: memoryview) -> bytes:
    """Return the values of a UINT8 tensor in C order. Raises BadInferRequest."""
    size, values = math.prod(tensor.shape), take_binary(tensor, binary)
    if values is None:
        return _convert_json_pixels(tensor.data, size)
    if len(values) != size:
        raise BadInferRequest(f"A tensor of shape {tensor.shape} has {size} bytes, not {len(values)}.")
    return bytes(values)


def _convert_json_pixels(data: Any, size: int) -> bytes:
    # Not with NumPy: an array of strings reserves the length of the longest string for each of them.
    values = _flatten(data)
    if len(values) == size and set(map(type, values)) == {int}:
        with suppress(ValueError, OverflowError):  # not from 0 to 255
            return bytes(values)
    raise BadInferRequest(f"`data` must be {size} integers from 0 to 255, as one list or nested like the shape.")


def _flatten(data: Any) -> list[Any]:
    """Return the elements of lists that are nested at most as deeply as a batch of images."""
    values = data if isinstance(data, list) else []
    for _ in range(_MAX_DEPTH - 1):
        if not any(isinstance(value, list) for value in values):
            break
        if not all(isinstance(value, list) for value in values):
            return []
        values = list(chain.from_iterable(values))
    return values


def split_elements(binary: memoryview, count: int) -> list[bytes]:
    """Return the `count` elements of a BYTES tensor, each after its length as 4 bytes. Raises BadInferRequest."""
    elements: list[bytes] = []
    start = 0
    for _ in range(count):
        begin = start + _LENGTH.size
        end = begin + _LENGTH.unpack_from(binary, start)[0] if begin <= len(binary) else math.inf
        if end > len(binary):
            raise BadInferRequest(f"Element {len(elements)} is longer than the binary data of the tensor.")
        start = int(end)
        elements.append(bytes(binary[begin:start]))
    if start != len(binary):
        raise BadInferRequest(f"{len(binary) - start} bytes follow the last of {count} elements.")
    return elements


def write_response(
    model: str, version: str, request_id: str, tensors: Iterable[tuple[Tensor, bool]]
) -> tuple[bytes, dict[str, str]]:
    """Return the body and its headers. Each tensor is paired with whether its values are sent as binary data."""
    outputs, binary = list[dict[str, Any]](), list[bytes]()
    for tensor, is_binary in tensors:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if is_binary:
            binary.append(tensor.to_binary())
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            output["data"] = tensor.to_json()
        outputs.append(output)
    identity = {"id": request_id} if request_id else {}
    document = to_json({"model_name": model, "model_version": version, **identity, "outputs": outputs})
    if not binary:
        return document, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(document))}
    return b"".join((document, *binary)), headers
