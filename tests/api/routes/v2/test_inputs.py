"""Inference requests that are rejected while they are parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.errors import BadInferRequest
from api.routes.v2.inputs import parse_images
from api.routes.v2.outputs import choose_outputs
from tests.api.routes.v2.bodies import LENGTH, SIDE, describe_files, describe_pixels, make_body, make_pixels, pack


@pytest.mark.parametrize("header", ["-1", "1e3", "999999999", "9" * 5000, "0x10", " ", "\N{FULLWIDTH DIGIT ONE}"])
def test_an_invalid_length_of_the_document_is_rejected(header: str) -> None:
    """The header must be a decimal number that is not larger than the length of the body."""
    with pytest.raises(BadInferRequest, match=LENGTH):
        parse_images(header, b"{}")


PIXELS = describe_pixels(make_pixels())


@pytest.mark.parametrize(
    ("tensor", "binary"),
    [
        (PIXELS, b"too short"),
        (PIXELS | {"shape": [9, SIDE, SIDE, 3]}, b""),
        (PIXELS | {"shape": [0, SIDE, SIDE, 3]}, b""),
        (PIXELS | {"shape": [1, 0, 0, 3]}, b""),
        (PIXELS | {"shape": [SIDE, SIDE, 3]}, b""),
        (PIXELS | {"datatype": "FP32"}, b""),
        (PIXELS | {"name": "x"}, b""),
        (PIXELS | {"data": [1]}, make_pixels().tobytes()),
        (describe_files(1), pack(b"x") + b"y"),
        (describe_files(2), pack(b"x")),
        (describe_files(1), b"\xff\xff\xff\xff"),
        (describe_files(1), b"\x01"),
        (describe_files(1, shape=[1, 2]), pack(b"x")),
    ],
)
def test_mismatched_binary_data_is_rejected(tensor: dict[str, Any], binary: bytes) -> None:
    """Shape, datatype and binary data must agree."""
    header, body = make_body(tensor, binary)
    with pytest.raises(BadInferRequest):
        parse_images(header[LENGTH], body)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"inputs": []},
        {"inputs": [PIXELS, PIXELS]},
        {"inputs": [PIXELS]},
        {"inputs": [describe_pixels(make_pixels(), shape=[1, 1, 1, 3], data=[1, 2, 256])]},
        {"inputs": [describe_pixels(make_pixels(), shape=[1, 1, 1, 3], data=[1, 2, -1])]},
        {"inputs": [describe_pixels(make_pixels(), shape=[1, 1, 1, 3], data=[1, [2], 3])]},
        {"inputs": [describe_pixels(make_pixels(), shape=[1, 1, 1, 3], data=[1.0, 2, 3])]},
        {"inputs": [describe_files(1, data=["no base64!"])]},
        {"inputs": [describe_files(1, data=[1])]},
        {"inputs": [describe_files(1, data=["eA=="])], "outputs": [{"name": "pooled"}]},
        {"inputs": [describe_files(1, data=["eA=="])], "parameters": {"timeout": -1}},
        {"inputs": [describe_files(1, data=["eA=="])], "parameters": {"binary_data_output": 1}},
        {
            "inputs": [describe_files(1, data=["eA=="])],
            "outputs": [{"name": "label", "parameters": {"classification": 1}}],
        },
    ],
)
def test_an_invalid_document_is_rejected(document: dict[str, Any]) -> None:
    """A document that the protocol or the model does not allow is rejected."""
    with pytest.raises(BadInferRequest):
        choose_outputs(parse_images(None, json.dumps(document).encode())[0])


@pytest.mark.parametrize("body", [b"", b"[", b"[" * 100_000, b'{"inputs": ' + b"[" * 1000, b" " * 1_300_000])
def test_a_body_that_is_no_document_is_rejected(body: bytes) -> None:
    """Empty, truncated, deeply nested and overlong documents are rejected."""
    with pytest.raises(BadInferRequest):
        parse_images(None, body)
