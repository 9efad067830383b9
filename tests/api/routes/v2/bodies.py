"""Build inference requests for the stub, and read responses."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends.stub import StubBackend

LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/stub/infer"
SIDE = 256


def make_pixels(count: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The stub's probabilities, computed image by image as in the gateway: a batch rounds differently."""
    return np.concatenate([StubBackend().predict(pixels[index : index + 1]) for index in range(len(pixels))])


def pack(*elements: bytes) -> bytes:
    """The binary values of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def describe_pixels(pixels: NDArray[np.uint8], **changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), **changes}


def describe_files(count: int, **changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [count], **changes}


def make_body(tensor: dict[str, Any], binary: bytes, **members: Any) -> tuple[dict[str, str], bytes]:
    """The header and the body of a request with binary values."""
    tensor = tensor | {"parameters": {"binary_data_size": len(binary)}}
    document = json.dumps({"inputs": [tensor], **members}).encode()
    return {LENGTH: str(len(document))}, document + binary


def read_outputs(document: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output.get("data") for output in document["outputs"]}
