"""Both prediction routes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

ROUTES = ("/predict-land-use", "/predict-land-use/", "/v1/predictions")


def _upload(data: bytes, name: str = "image.jpg") -> dict[str, Any]:
    return {"files": {"file": (name, data)}}


def test_original_fields(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """The first route answers what the research script answered, and the new fields beside it."""
    body = client.post("/predict-land-use/", headers=bearer, **_upload(sample)).json()
    assert set(body) == {"prediction", "prediction_probability", "label", "model", "id"}
    (probabilities,) = body["prediction_probability"]
    assert len(probabilities) == 21
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert body["prediction"] == probabilities.index(max(probabilities))
    assert uuid.UUID(body["id"]).version == 7


def test_versioned_fields(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """The versioned route names the image by its digest and size, and gives the best labels first."""
    body = client.post("/v1/predictions?top_k=3", headers=bearer, **_upload(sample)).json()
    assert body["image"] == {
        "sha256": hashlib.sha256(sample).hexdigest(),
        "format": "JPEG",
        "width": 256,
        "height": 256,
    }
    best = [row["probability"] for row in body["predictions"]]
    assert len(best) == 3
    assert best == sorted(best, reverse=True)
    assert body["predictions"][0] == {"label": body["label"], "probability": body["confidence"]}
    assert set(body["timing"]) == {"queue", "decode", "infer"}


def test_image_as_body(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """The image itself may be the body, and the answer is the same as for a form."""
    raw = client.post("/v1/predictions", headers={**bearer, "Content-Type": "image/jpeg"}, content=sample).json()
    form = client.post("/v1/predictions", headers=bearer, **_upload(sample)).json()
    assert raw["predictions"] == form["predictions"]


@pytest.mark.parametrize("route", ROUTES)
def test_no_credentials(client: TestClient, sample: bytes, route: str) -> None:
    """Without credentials the answer is 401 with a challenge."""
    answer = client.post(route, **_upload(sample))
    assert answer.status_code == 401
    assert answer.json()["code"] == "missing_credentials"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("route", ROUTES)
def test_wrong_scope(client: TestClient, log_in: Any, sample: bytes, route: str) -> None:
    """A principal without the scope `predict` gets 403, and the challenge names the scope."""
    answer = client.post(route, headers=log_in(client, "olga"), **_upload(sample))
    assert answer.status_code == 403
    assert answer.json()["code"] == "insufficient_scope"
    assert 'scope="predict"' in answer.headers["WWW-Authenticate"]


def test_unknown_callers_are_refused_before_the_body_is_read(client: TestClient) -> None:
    """A caller without credentials is refused before a byte of the body is asked for."""
    read = []

    def body() -> Iterator[bytes]:
        read.append(True)
        yield b"x"

    answer = client.post("/v1/predictions", headers={"Content-Type": "image/jpeg"}, content=body())
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"just some text", 415, "unsupported_image"),
        (b"", 422, "empty_image"),
        (b"\xff\xd8\xff\xe0 not really", 422, "corrupt_image"),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
def test_bad_images(
    client: TestClient, bearer: dict[str, str], route: str, data: bytes, status: int, code: str
) -> None:
    """A file that is no image gets a 4xx problem with a code, whatever its name says."""
    answer = client.post(route, headers=bearer, **_upload(data))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_form_without_file(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """A form that has no field `file` is told which field to use."""
    answer = client.post("/predict-land-use", headers=bearer, files={"image": ("a.jpg", sample)})
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_file")


def test_file_sent_as_text_field(client: TestClient, bearer: dict[str, str]) -> None:
    """A text field named `file` is no file."""
    answer = client.post("/predict-land-use", headers=bearer, files={"file": (None, "text")})
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_file")


def test_several_files(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """One request carries one file."""
    files = [("file", ("a.jpg", sample)), ("file", ("b.jpg", sample))]
    answer = client.post("/predict-land-use", headers=bearer, files=files)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_form")


def test_broken_form(client: TestClient, bearer: dict[str, str]) -> None:
    """A multipart body without its boundary is refused as a form."""
    headers = {**bearer, "Content-Type": "multipart/form-data"}
    answer = client.post("/predict-land-use", headers=headers, content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_form")


@pytest.mark.parametrize("route", ROUTES)
def test_unsupported_body(client: TestClient, bearer: dict[str, str], route: str) -> None:
    """A body of another media type is a 415 that names those that are accepted."""
    answer = client.post(route, headers=bearer, json={"url": "https://example.org/image.jpg"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_body")


def test_top_k_out_of_range(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """A bad query parameter is named, in a problem document."""
    answer = client.post("/v1/predictions?top_k=0", headers=bearer, **_upload(sample))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["field"] == "query.top_k"


def test_queue_full(make_client: Any, settings: Any, log_in: Any, sample: bytes) -> None:
    """When the queue is full the answer is 503 with how long to wait, and it is counted."""
    model = settings.model.model_copy(update={"url": "stub://?latency_ms=300", "workers": 1, "queue_limit": 0})
    client = make_client(model=model)
    headers = log_in(client)

    def send(_: int) -> Any:
        return client.post("/v1/predictions", headers=headers, **_upload(sample))

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, range(4)))
    shed = [answer for answer in answers if answer.status_code == 503]
    assert any(answer.status_code == 200 for answer in answers)
    assert shed
    assert all(answer.json()["code"] == "overloaded" for answer in shed)
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in shed)
