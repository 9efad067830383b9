"""Triton's own client works unchanged with a credential of the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from model.backends.stub import StubBackend
from tests.api.routes.v2.bodies import make_pixels, predict
from tests.support.gateway import Gateway, running_gateway

CLASSES = StubBackend().info.classes
RATE = 20


@pytest.fixture(scope="module")
def limited_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("v2")
    with running_gateway(folder, MODEL__URL="stub://", LIMITS__PREDICT=f"{RATE}/day") as gateway:
        yield gateway


@pytest.fixture
def triton(limited_gateway: Gateway) -> Iterator[InferenceServerClient]:
    with closing(InferenceServerClient(f"127.0.0.1:{limited_gateway.port}")) as client:
        yield client


def make_pixels_input(count: int) -> InferInput:
    tensor = InferInput("image", [count, 256, 256, 3], "UINT8")
    tensor.set_data_from_numpy(make_pixels(count))
    return tensor


def make_files_input(*files: bytes) -> InferInput:
    tensor = InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, np.object_))
    return tensor


def test_predictions_with_a_token(triton: InferenceServerClient, limited_gateway: Gateway) -> None:
    """With a token, Triton's client reads the metadata and gets predictions and classes for decoded images."""
    headers = {"Authorization": f"Bearer {limited_gateway.token('ana')}"}
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("stub", "1.0", headers=headers)
    assert "binary_tensor_data" in triton.get_server_metadata(headers=headers)["extensions"]
    assert triton.get_model_metadata("stub", headers=headers)["inputs"][0]["name"] == "image"
    expected = predict(make_pixels(2))
    result = triton.infer("stub", [make_pixels_input(2)], headers=headers, request_id="7")
    assert result.get_response()["id"] == "7"
    assert np.array_equal(result.as_numpy("probabilities"), expected)
    assert [label.decode() for label in result.as_numpy("label")] == [CLASSES[i] for i in expected.argmax(axis=1)]
    best = triton.infer(
        "stub",
        [make_pixels_input(2)],
        outputs=[InferRequestedOutput("probabilities", class_count=1)],
        headers=headers,
    )
    assert [int(text.decode().split(":")[1]) for (text,) in best.as_numpy("probabilities")] == (
        expected.argmax(axis=1).tolist()
    )


def test_predictions_with_an_api_key(triton: InferenceServerClient, limited_gateway: Gateway, sample: bytes) -> None:
    """With an API key, an encoded image gets the label of the gateway's own route, with or without binary outputs."""
    login = {"Authorization": f"Bearer {limited_gateway.token('ana')}"}
    created = limited_gateway.post("/v1/keys", headers=login, json={"name": "triton", "scopes": ["predict"]})
    headers = {"X-API-Key": created.json()["key"]}
    expected = limited_gateway.post("/v1/predictions", headers=headers, files={"file": sample}).json()
    for binary in (True, False):
        outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("label", "confidence")]
        result = triton.infer("stub", [make_files_input(sample)], outputs=outputs, headers=headers)
        (label,) = result.as_numpy("label")
        assert (label.decode() if binary else label) == expected["label"]
        assert result.as_numpy("confidence") == pytest.approx([expected["confidence"]])


def test_no_prediction_without_a_credential(triton: InferenceServerClient) -> None:
    """Without a credential the client gets 401 and the reason."""
    with pytest.raises(InferenceServerException, match="No credentials") as raised:
        triton.infer("stub", [make_pixels_input(1)])
    assert raised.value.status() == "401"


def test_no_prediction_over_the_limit(triton: InferenceServerClient, limited_gateway: Gateway) -> None:
    """A caller over the rate limit gets 429 and the reason."""
    limited_gateway.add_user("lena")
    headers = {"Authorization": f"Bearer {limited_gateway.token('lena')}"}
    for _ in range(RATE // 8):
        triton.infer("stub", [make_pixels_input(8)], headers=headers)
    with pytest.raises(InferenceServerException, match="Too many requests") as raised:
        triton.infer("stub", [make_pixels_input(8)], headers=headers)
    assert raised.value.status() == "429"
