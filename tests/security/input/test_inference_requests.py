"""Threat T67: the gateway parses any inference request or rejects it as bad, within bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import BadInferRequest
from api.routes.v2.inputs import MAX_IMAGES, parse_images
from api.routes.v2.outputs import choose_outputs
from api.routes.v2.wire import MAX_DOCUMENT_BYTES, estimate_parsing_bytes
from tests.api.routes.v2.bodies import describe_pixels, make_body, make_pixels
from tests.support.gateway import Gateway

PATH = "/v2/models/efficientnetb0/infer"
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda children: st.lists(children, max_size=4), max_leaves=12)
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "classification", "timeout", "other"]),
    st.integers(-2, 40) | SCALARS,
    max_size=3,
)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["image", "other"]),
        "datatype": st.sampled_from(["UINT8", "BYTES", "FP32"]),
        "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=5) | st.just([1, 1, 1, 3]) | st.just([2]),
    },
    optional={"parameters": PARAMETERS, "data": VALUES},
)
OUTPUTS = st.fixed_dictionaries(
    {"name": st.sampled_from(["probabilities", "label", "other"])}, optional={"parameters": PARAMETERS}
)
DOCUMENTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=2)},
    optional={"id": SCALARS, "parameters": PARAMETERS, "outputs": st.lists(OUTPUTS, max_size=2)},
)
HEADERS = st.none() | st.integers(-5, 400).map(str) | st.text(max_size=8)


def check(header: str | None, body: bytes) -> None:
    try:
        document, batch = parse_images(header, body)
        choose_outputs(document)
    except BadInferRequest:
        return
    assert 1 <= len(batch.images) <= MAX_IMAGES
    assert sum(map(len, batch.images)) <= len(body)


@given(HEADERS, st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes(header: str | None, body: bytes) -> None:
    """Arbitrary bytes are either a valid request or rejected with BadInferRequest."""
    check(header, body)


@given(DOCUMENTS, st.binary(max_size=60), st.booleans(), HEADERS)
@settings(max_examples=500)
def test_any_document(document: dict[str, Any], binary: bytes, is_split: bool, header: str | None) -> None:
    """A request of any shape, datatype and length is either rejected or has no more bytes of images than of body."""
    text = json.dumps(document).encode()
    check(str(len(text)) if is_split else header, text + binary)


@pytest.mark.usefixtures("within_one_month")
@pytest.mark.parametrize(
    ("terms", "code"), [({"monthly_requests": 2}, "quota_exceeded"), ({"rate": "2/day"}, "rate_limited")]
)
def test_each_image_of_a_request_counts(
    gateway: Gateway, caller: httpx.Client, terms: dict[str, Any], code: str
) -> None:
    """A key that is limited to two requests gets a 429 for a single request with three images."""
    key = caller.post("/v1/keys", json={"name": code, **terms}).json()["key"]
    pixels = make_pixels(3)
    header, body = make_body(describe_pixels(pixels), pixels.tobytes())
    response = gateway.post(PATH, headers={"X-API-Key": key, **header}, content=body)
    assert (response.status_code, response.json()["code"]) == (429, code)


def test_no_body_is_read_without_a_credential(gateway: Gateway) -> None:
    """Without a valid credential the response is 401, whatever the body."""
    for headers in ({}, {"Authorization": "Bearer x"}, {"X-API-Key": "atl_x"}):
        assert gateway.post(PATH, headers=headers, content=b"{").status_code == 401


@pytest.mark.parametrize(
    "data",
    [
        [1, 2, "x" * 600_000, *["y"] * 9],
        [[[["x" * 600_000, *["y"] * 11]]]],
        [[[[1, 2, 3], 4]]],
        [[[[[1, 2, 3]]]]],
        [1, 2, True],
        [1, 2, 3.0],
        [1, 2, 256],
        [1, 2, -1],
        [1, 2, 10**400],
        "abc",
        None,
    ],
)
def test_values_that_are_no_pixels(data: Any) -> None:
    """Only integers from 0 to 255 are accepted as pixels; rejecting other values takes bounded memory."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": data}
    body = json.dumps({"inputs": [tensor]}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(BadInferRequest):
            parse_images(None, body)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(body) + 1_000_000
    finally:
        tracemalloc.stop()


def test_an_endless_timeout_is_no_timeout() -> None:
    """A timeout beyond the range of a float counts as a very long one."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    document = {"inputs": [tensor], "parameters": {"timeout": 10**400}}
    _, batch = parse_images(None, json.dumps(document).encode())
    assert batch.timeout_s is not None
    assert batch.timeout_s > 86_400


REPEATED = [
    pytest.param(b"[]", id="lists"),
    pytest.param(b"[[[]]]", id="nested lists"),
    pytest.param(b'{"a":0}', id="objects"),
    pytest.param(b"0", id="digits"),
    pytest.param(b"999", id="numbers"),
    pytest.param(b"1.5", id="fractions"),
    pytest.param(b'"ab"', id="short texts"),
    pytest.param('"\U0001f600"'.encode(), id="wide texts"),
]


@pytest.mark.parametrize("value", REPEATED)
@pytest.mark.parametrize("length", [180_000, MAX_DOCUMENT_BYTES])
def test_parsing_takes_at_most_the_memory_that_is_reserved(value: bytes, length: int) -> None:
    """Parsing a document takes no more than the reserved 30 times its length, whatever it repeats."""
    head = b'{"inputs":[{"name":"image","shape":[1,256,256,3],"datatype":"UINT8","data":['
    tail = b"]}]}"
    count = (length - len(head) - len(tail)) // (len(value) + 1)
    body = head + b",".join([value] * count) + tail
    assert_bad_and_small(body)


@pytest.mark.parametrize(
    "member", [b'"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","parameters"', b'"parameters"']
)
def test_many_wrong_parameters_are_one_error(member: bytes) -> None:
    """Any number of parameters of a wrong type is rejected with one short message, within the reserved memory."""
    body = b"{" + member + b":{" + b",".join(b'"%x":null' % index for index in range(90_000)) + b"}}"
    body += b"]}" if b"inputs" in member else b""
    assert_bad_and_small(body)


def test_a_long_name_is_not_echoed() -> None:
    """The message about a parameter with a very long name is short."""
    body = b'{"inputs":[],"parameters":{"' + b"x" * 1_000_000 + b'":[]}}'
    assert_bad_and_small(body)


def assert_bad_and_small(body: bytes) -> None:
    reserved = estimate_parsing_bytes(None, len(body))
    tracemalloc.start()
    try:
        with pytest.raises(BadInferRequest) as rejection:
            parse_images(None, body)
        assert tracemalloc.get_traced_memory()[1] < reserved
    finally:
        tracemalloc.stop()
    assert len(str(rejection.value)) < 300


@pytest.mark.parametrize(
    ("header", "body_bytes", "expected"),
    [
        (None, 1_000, 30_000),
        (None, 20_000_000, 30 * MAX_DOCUMENT_BYTES),
        ("100", 20_000_000, 3_000),
        ("9" * 5_000, 1_000, 30_000),
        ("-1", 1_000, 0),
    ],
)
def test_memory_is_reserved_for_the_document_alone(header: str | None, body_bytes: int, expected: int) -> None:
    """Memory is reserved by the length of the JSON document, which a header gives if binary values follow it."""
    assert estimate_parsing_bytes(header, body_bytes) == expected
