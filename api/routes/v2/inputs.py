"""The images of an inference request: decoded pixels, or encoded files."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from api.errors import BadInferRequest
from api.prediction.request import ImageBatch
from api.routes.v2.wire import parse_request, read_bytes_of_pixels, split_elements, take_binary
from api.schemas.inference import InferInput, InferRequest
from model.serving.sources import ImageSource, PixelTensor

MAX_IMAGES = 8
INPUT = "image"
_CHANNELS = 3
_MICROSECONDS = 1_000_000
_MAX_TIMEOUT = 10**12  # a longer timeout has no effect, and may overflow a float


def parse_images(header: str | None, body: bytes) -> tuple[InferRequest, ImageBatch]:
    """Parse a body; `header` is its Inference-Header-Content-Length, None for JSON alone. Raises BadInferRequest."""
    document, binary = parse_request(header, body)
    if len(document.inputs) > 1:
        raise BadInferRequest(f"Send one input, {INPUT}, with up to {MAX_IMAGES} images.")
    (tensor,) = document.inputs
    return document, ImageBatch(_read_images(tensor, binary), _read_timeout(document))


def _read_images(tensor: InferInput, binary: memoryview) -> Sequence[ImageSource]:
    if (tensor.name, tensor.datatype) == (INPUT, "UINT8"):
        return _read_pixels(tensor, binary)
    if (tensor.name, tensor.datatype) == (INPUT, "BYTES"):
        return _read_files(tensor, binary)
    raise BadInferRequest(f"The input must be {INPUT}, of datatype UINT8 for pixels or BYTES for encoded images.")


def _read_pixels(tensor: InferInput, binary: memoryview) -> list[PixelTensor]:
    if len(tensor.shape) != 1 + _CHANNELS or tensor.shape[-1] != _CHANNELS or 0 in tensor.shape[1:]:
        raise BadInferRequest("The shape of pixels must be [n, height, width, 3].")
    count, height, width, _ = tensor.shape
    _check_count(count)
    data = read_bytes_of_pixels(tensor, binary)
    size = height * width * _CHANNELS
    return [PixelTensor(data[start : start + size], height, width) for start in range(0, count * size, size)]


def _read_files(tensor: InferInput, binary: memoryview) -> list[bytes]:
    if tensor.shape[1:] not in ([], [1]):
        raise BadInferRequest("The shape of encoded images must be [n] or [n, 1].")
    _check_count(tensor.shape[0])
    values = take_binary(tensor, binary)
    if values is None:
        return _decode_base64(tensor.data, tensor.shape[0])
    return split_elements(values, tensor.shape[0])


def _decode_base64(data: Any, count: int) -> list[bytes]:
    if isinstance(data, list) and len(data) == count and all(isinstance(element, str) for element in data):
        try:
            return [b64decode(element, validate=True) for element in data]
        except ValueError:
            pass
    expected = "file" if count == 1 else "files"
    raise BadInferRequest(f"`data` must be a list of {count} {expected} in base64. Binary data takes less memory.")


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_IMAGES:
        raise BadInferRequest(f"A request may have 1 to {MAX_IMAGES} images, not {count}. Send several requests.")


def _read_timeout(document: InferRequest) -> float | None:
    """Return Triton's parameter `timeout` in seconds. The request has it in microseconds, 0 for none."""
    timeout = document.parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise BadInferRequest("The parameter timeout must be a number of microseconds.")
    return min(timeout, _MAX_TIMEOUT) / _MICROSECONDS or None
