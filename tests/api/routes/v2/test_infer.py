"""`POST /v2/models/{model}/infer`: what it accepts, returns, records and counts."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from starlette.testclient import TestClient

from api.settings import Settings
from model.backends.stub import StubBackend
from tests.api.conftest import LogIn, MakeClient
from tests.api.routes.v2.bodies import (
    INFER,
    LENGTH,
    SIDE,
    describe_files,
    describe_pixels,
    make_body,
    make_pixels,
    pack,
    predict,
    read_outputs,
)

Bearer = dict[str, str]


def send_pixels(client: TestClient, bearer: Bearer, count: int = 1, path: str = INFER, **members: Any) -> Any:
    pixels = make_pixels(count)
    header, body = make_body(describe_pixels(pixels), pixels.tobytes(), **members)
    return client.post(path, headers=bearer | header, content=body)


def send_json(client: TestClient, bearer: Bearer, tensor: dict[str, Any], **members: Any) -> Any:
    return client.post(INFER, headers=bearer, json={"inputs": [tensor], **members})


def list_entries(client: TestClient, bearer: Bearer) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = client.get("/v1/predictions", headers=bearer).json()["entries"]
    return entries


def test_decoded_images_get_the_model_s_probabilities(client: TestClient, bearer: Bearer) -> None:
    """Decoded pixels reach the model unchanged, and outputs follow the order of the request."""
    response = send_pixels(client, bearer, 3, id="request 1")
    assert response.status_code == 200, response.text
    document = response.json()
    assert (document["model_name"], document["model_version"], document["id"]) == ("stub", "1.0", "request 1")
    expected = predict(make_pixels(3))
    outputs = read_outputs(document)
    assert np.array_equal(np.array(outputs["probabilities"], np.float32).reshape(3, -1), expected)
    classes = StubBackend().info.classes
    assert outputs["label"] == [classes[index] for index in expected.argmax(axis=1)]
    assert outputs["reason"] == ["", "", ""]


def test_encoded_images_get_the_prediction_of_the_other_routes(
    client: TestClient, bearer: Bearer, sample: bytes
) -> None:
    """A file sent as binary data or in base64 gets the same label and confidence as at /v1/predictions."""
    expected = client.post("/v1/predictions", headers=bearer, files={"file": sample}).json()
    header, body = make_body(describe_files(2), pack(sample, sample))
    responses: list[Any] = [
        client.post(INFER, headers=bearer | header, content=body),
        send_json(client, bearer, describe_files(1, data=[b64encode(sample).decode()])),
    ]
    for response in responses:
        outputs = read_outputs(response.json())
        assert set(outputs["label"]) == {expected["label"]}
        assert outputs["confidence"] == pytest.approx([expected["confidence"]] * len(outputs["label"]))


def test_pixels_may_be_json(client: TestClient, bearer: Bearer) -> None:
    """The values of a decoded image may be a flat list of numbers or nested like its shape."""
    pixels = make_pixels()
    for data in (pixels, pixels.ravel()):
        tensor = describe_pixels(pixels, data=data.tolist())
        response = send_json(client, bearer, tensor, outputs=[{"name": "probabilities"}])
        assert response.status_code == 200, response.text
        assert np.array_equal(np.float32(response.json()["outputs"][0]["data"]), StubBackend().predict(pixels)[0])


def test_binary_outputs_follow_the_document(client: TestClient, bearer: Bearer) -> None:
    """Outputs are binary if the request says so; the header has the length of the JSON document before them."""
    outputs = [
        {"name": "label"},
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "prediction_id", "parameters": {"binary_data": True}},
    ]
    response = send_pixels(client, bearer, outputs=outputs)
    length = int(response.headers[LENGTH])
    document, binary = json.loads(response.content[:length]), response.content[length:]
    sizes = [output.get("parameters", {}).get("binary_data_size") for output in document["outputs"]]
    assert sizes == [None, 4 * 21, 4 + 36]
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert np.array_equal(np.frombuffer(binary[: sizes[1]], "<f4"), StubBackend().predict(make_pixels())[0])
    (entry,) = list_entries(client, bearer)
    assert binary[sizes[1] + 4 :].decode() == entry["id"]


def test_the_most_probable_classes_may_replace_the_probabilities(client: TestClient, bearer: Bearer) -> None:
    """With Triton's classification extension an output lists `probability:index:class`, the best first."""
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    (output,) = send_pixels(client, bearer, 2, outputs=outputs).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    best = predict(make_pixels(2)).argmax(axis=1)
    assert [int(text.split(":")[1]) for text in output["data"][::2]] == best.tolist()
    assert output["data"][0].endswith(f":{StubBackend().info.classes[best[0]]}")


@pytest.mark.usefixtures("within_one_month")
def test_each_image_is_recorded_charged_and_counted(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """Each image of a request is recorded in the ledger, and counts as one request for quota and rate limit."""
    before = int(client.get("/v1/usage", headers=bearer).json()["requests"])
    response = send_pixels(client, bearer, 3, outputs=[{"name": "prediction_id"}])
    entries = list_entries(client, bearer)
    assert [entry["id"] for entry in reversed(entries)] == response.json()["outputs"][0]["data"]
    assert client.get("/v1/usage", headers=bearer).json()["requests"] == before + 3
    image = client.get(f"/v1/predictions/{entries[-1]['id']}", headers=bearer).json()["image"]
    assert (image["format"], image["width"], image["height"]) == ("TENSOR", SIDE, SIDE)
    assert image["sha256"] == hashlib.sha256(make_pixels(3)[0].tobytes()).hexdigest()
    single = client.post("/v1/predictions", headers=bearer, files={"file": sample})
    assert [_count_hits(each) for each in (response, single)] == [3, 4]


def _count_hits(response: Any) -> int:
    """The hits that its headers count in the present window: the rate less what remains."""
    rate, remaining = (
        int(response.headers[header].partition(f"{name}=")[2].partition(";")[0])
        for header, name in (("RateLimit-Policy", "q"), ("RateLimit", "r"))
    )
    return rate - remaining


def test_more_images_than_the_rate_allows_are_not_classified(
    make_client: MakeClient, settings: Settings, log_in: LogIn
) -> None:
    """A request whose images exceed the rate gets 429, and none of its images is classified."""
    classified = list[int]()

    class CountingBackend(StubBackend):
        def predict_with_features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            classified.append(len(pixels))
            return super().predict_with_features(pixels)

    limits = settings.limits.model_copy(update={"predict": "2/day"})
    client = make_client(limits=limits, open_model=CountingBackend)
    bearer = log_in(client)
    at_start = sum(classified)
    response = send_pixels(client, bearer, 3)
    assert sum(classified) == at_start
    assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["RateLimit-Policy"] == '"predict";q=2;w=86400'
    assert response.json()["error"] == response.json()["detail"]
    assert send_pixels(client, bearer).status_code == 200
    assert sum(classified) == at_start + 1


def test_the_first_bad_image_ends_the_request(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """An image that cannot be classified fails the whole request; images before it stay recorded."""
    header, body = make_body(describe_files(3), pack(sample, b"no image", sample))
    response = client.post(INFER, headers=bearer | header, content=body)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_image")
    send_pixels(client, bearer)  # flushes the recorded refusals
    entries = sorted((entry["status"], entry["code"] or "") for entry in list_entries(client, bearer))
    assert entries == [(200, ""), (200, ""), (415, "unsupported_image")]


def test_only_the_model_in_service_predicts(client: TestClient, bearer: Bearer) -> None:
    """Another name or version is a 404 that says which model is in service."""
    for path in ("/v2/models/other/infer", "/v2/models/stub/versions/2.0/infer"):
        response = send_pixels(client, bearer, path=path)
        assert (response.status_code, response.json()["code"]) == (404, "model_not_served")
        assert "stub in version 1.0" in response.json()["error"]
    assert send_pixels(client, bearer, path="/v2/models/stub/versions/1.0/infer").status_code == 200


def test_bad_requests_have_the_protocol_s_form(client: TestClient, bearer: Bearer) -> None:
    """A malformed request gets 400 with the member `error`; so does a decoded image of the wrong size."""
    response = client.post(INFER, headers=bearer | {LENGTH: "-1"}, content=b"{}")
    assert (response.status_code, response.json()["code"]) == (400, "bad_infer_request")
    assert response.json()["error"] == response.json()["detail"]
    response = client.post(INFER, headers=bearer, content=b"[]")
    assert (response.status_code, response.json()["error"]) == (400, "body: must be a JSON object.")
    tensor = describe_pixels(make_pixels(), shape=[1, 2, 2, 3], data=[1] * 12)
    response = send_json(client, bearer, tensor)
    assert (response.status_code, response.json()["code"]) == (400, "tensor_shape")


def test_the_caller_is_authenticated_before_the_body_is_read(client: TestClient, log_in: LogIn) -> None:
    """Without a credential the response is 401, without the scope `predict` 403, whatever the body."""
    assert client.post(INFER, content=b"{").status_code == 401
    response = client.post(INFER, headers=log_in(client, scope="keys:write"), content=b"{")
    assert (response.status_code, response.json()["error"]) == (403, response.json()["detail"])


def test_the_timeout_of_the_request_is_its_deadline(make_client: MakeClient, settings: Settings, log_in: LogIn) -> None:
    """Triton's parameter `timeout`, in microseconds, bounds the inference of all images."""
    client = make_client(model=settings.model.model_copy(update={"url": "stub://?latency_ms=200"}))
    response = send_pixels(client, log_in(client), 2, parameters={"timeout": 250_000})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


def test_a_version_that_is_replaced_while_the_body_arrives_classifies_nothing(
    client: TestClient, bearer: Bearer
) -> None:
    """A request for a version that is no longer in service when its body is complete gets 404 and is not charged."""
    pixels, successor = make_pixels(), StubBackend()
    successor.info = replace(successor.info, version="2.0")
    header, body = make_body(describe_pixels(pixels), pixels.tobytes())

    def send_body() -> Iterator[bytes]:
        yield body[:100]
        client.app_state["services"].serving.predictions.replace_backend(successor)
        yield body[100:]

    path = "/v2/models/stub/versions/1.0/infer"
    response = client.post(path, headers=bearer | header, content=send_body())
    assert (response.status_code, response.json()["code"]) == (404, "model_not_served")
    assert client.get("/v1/usage", headers=bearer).json()["requests"] == 0
    assert send_pixels(client, bearer).json()["model_version"] == "2.0"


def test_images_over_the_rate_are_not_counted(make_client: MakeClient, settings: Settings, log_in: LogIn) -> None:
    """A request that exceeds the rate counts as one hit, not as one per image, so that a smaller one may follow."""
    client = make_client(limits=settings.limits.model_copy(update={"predict": "4/day"}))
    bearer = log_in(client)
    assert [send_pixels(client, bearer, count).status_code for count in (5, 3, 1)] == [429, 200, 429]
