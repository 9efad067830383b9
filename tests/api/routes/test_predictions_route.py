"""The prediction routes."""

from __future__ import annotations

import hashlib
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from api.schemas.predictions import PredictionResponse
from tests.api.conftest import Bearers

ROUTES = ("/predict-land-use", "/predict-land-use/", "/v1/predictions")


def _upload(data: bytes, name: str = "image.jpg") -> dict[str, Any]:
    return {"files": {"file": (name, data)}}


def test_first_route_has_the_script_s_fields(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """/predict-land-use returns the fields of the research team's script and the gateway's own fields."""
    body = client.post("/predict-land-use/", headers=bearer, **_upload(sample)).json()
    assert set(body) == {"prediction", "prediction_probability", "label", "model", "id"}
    (probabilities,) = body["prediction_probability"]
    assert len(probabilities) == 21
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert body["prediction"] == probabilities.index(max(probabilities))
    assert uuid.UUID(body["id"]).version == 7


def test_versioned_route_describes_the_image(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """The versioned route returns the image's digest, size and depth, and the most probable labels first."""
    body = client.post("/v1/predictions?top_k=3", headers=bearer, **_upload(sample)).json()
    assert body["image"] == {
        "sha256": hashlib.sha256(sample).hexdigest(),
        "format": "JPEG",
        "width": 256,
        "height": 256,
        "bit_depth": 8,
        "scaling": "none",
        "ground_resolution_m": None,
    }
    best = [row["probability"] for row in body["predictions"]]
    assert len(best) == 3
    assert best == sorted(best, reverse=True)
    assert body["predictions"][0] == {"label": body["label"], "probability": body["confidence"]}
    assert set(body["timing"]) == {"queue", "decode", "infer"}


def test_image_as_body(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """The body may be the image itself; the prediction is the same as for a form."""
    raw = client.post("/v1/predictions", headers={**bearer, "Content-Type": "image/jpeg"}, content=sample).json()
    form = client.post("/v1/predictions", headers=bearer, **_upload(sample)).json()
    assert raw["predictions"] == form["predictions"]


@pytest.mark.parametrize("route", ROUTES)
def test_no_credentials(shared_client: TestClient, sample: bytes, route: str) -> None:
    """A request without credentials gets 401 with a challenge."""
    response = shared_client.post(route, **_upload(sample))
    assert response.status_code == 401
    assert response.json()["code"] == "missing_credentials"
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("route", ROUTES)
def test_wrong_scope(shared_client: TestClient, shared_bearers: Bearers, sample: bytes, route: str) -> None:
    """A principal without the scope `predict` gets 403 and a challenge that names the scope."""
    response = shared_client.post(route, headers=shared_bearers["olga"], **_upload(sample))
    assert response.status_code == 403
    assert response.json()["code"] == "insufficient_scope"
    assert 'scope="predict"' in response.headers["WWW-Authenticate"]


def post_unread(client: TestClient, *headers: tuple[bytes, bytes]) -> tuple[int, int]:
    """Post to /v1/predictions without sending the body; returns the status and how often the gateway read from it."""
    reads: list[bool] = []
    sent: list[Message] = []

    async def receive() -> Message:
        reads.append(True)
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/predictions",
        "raw_path": b"/v1/predictions",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"content-type", b"image/jpeg"), *headers],
        "client": ("192.0.2.1", 1234),
        "state": dict(client.app_state),
    }
    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    return sent[0]["status"], len(reads)


def test_unknown_callers_are_rejected_before_the_body_is_read(client: TestClient) -> None:
    """A request without credentials is rejected before the gateway reads a byte of the body."""
    assert post_unread(client) == (401, 0)


def test_a_long_body_is_rejected_before_it_is_read(client: TestClient, bearer: dict[str, str]) -> None:
    """A declared length over the limit is rejected before the gateway reads a byte of the body."""
    authorization = bearer["Authorization"].encode()
    assert post_unread(client, (b"authorization", authorization), (b"content-length", b"99999999999")) == (413, 0)


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
    shared_client: TestClient, shared_bearers: Bearers, route: str, data: bytes, status: int, code: str
) -> None:
    """A file that is not an image gets a 4xx problem with a code, whatever its name is."""
    response = shared_client.post(route, headers=shared_bearers["ana"], **_upload(data))
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["Content-Type"] == "application/problem+json"


def test_form_without_file(shared_client: TestClient, shared_bearers: Bearers, sample: bytes) -> None:
    """A form without the field `file` gets an error that names the field."""
    response = shared_client.post(
        "/predict-land-use", headers=shared_bearers["ana"], files={"image": ("a.jpg", sample)}
    )
    assert (response.status_code, response.json()["code"]) == (422, "missing_file")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("disposition", ['name="file"', "name=file", "name=\"file\"; filename*=utf-8''k%C3%BCste.jpg"])
def test_file_without_a_plain_file_name(
    shared_client: TestClient, shared_bearers: Bearers, sample: bytes, route: str, disposition: str
) -> None:
    """The part `file` is accepted without a file name and with only an encoded one (RFC 7578, RFC 8187)."""
    body = b"--b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n--b--\r\n" % (disposition.encode(), sample)
    headers = {**shared_bearers["ana"], "Content-Type": "multipart/form-data; boundary=b"}
    response = shared_client.post(route, headers=headers, content=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "media_type", ["image/jpg", "image/pjpeg", "image/*", "application/octet-stream", "binary/octet-stream", "", None]
)
def test_the_content_of_a_raw_body_decides(
    shared_client: TestClient, shared_bearers: Bearers, sample: bytes, media_type: str | None
) -> None:
    """If the media type is generic, misspelt or missing, the content of a raw body determines its format."""
    headers = shared_bearers["ana"] if media_type is None else {**shared_bearers["ana"], "Content-Type": media_type}
    response = shared_client.post("/v1/predictions", headers=headers, content=sample)
    assert response.status_code == 200, response.text
    assert response.json()["image"]["format"] == "JPEG"


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/predictions", {"content": b"x", "headers": {"Content-Type": "image/jpeg"}}),
        ("/predict-land-use", {"files": {"file": b"x"}}),
        ("/v1/me/password", {"json": {"password": "x"}}),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_compressed_bodies(
    shared_client: TestClient, shared_bearers: Bearers, path: str, options: dict[str, Any], encoding: str
) -> None:
    """A compressed body gets 415 with `Accept-Encoding: identity` on every route (RFC 9110, section 12.5.3)."""
    headers = {**shared_bearers["ana"], "Content-Encoding": encoding, **options.get("headers", {})}
    response = shared_client.post(path, **{**options, "headers": headers})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_encoding")
    assert response.headers["accept-encoding"] == "identity"


def test_a_compressed_form_of_an_oauth_endpoint(shared_client: TestClient) -> None:
    """The OAuth endpoints reject a compressed form with an error in the format of RFC 6749."""
    response = shared_client.post("/auth/token", data={"grant_type": "password"}, headers={"Content-Encoding": "gzip"})
    assert (response.status_code, response.json()["error"]) == (415, "invalid_request")
    assert response.headers["accept-encoding"] == "identity"


def test_several_files(shared_client: TestClient, shared_bearers: Bearers, sample: bytes) -> None:
    """A form with two files is rejected."""
    files = [("file", ("a.jpg", sample)), ("file", ("b.jpg", sample))]
    response = shared_client.post("/predict-land-use", headers=shared_bearers["ana"], files=files)
    assert (response.status_code, response.json()["code"]) == (400, "bad_form")


def test_broken_form(client: TestClient, bearer: dict[str, str]) -> None:
    """A multipart body without a boundary is rejected as a bad form."""
    headers = {**bearer, "Content-Type": "multipart/form-data"}
    response = client.post("/predict-land-use", headers=headers, content=b"x")
    assert (response.status_code, response.json()["code"]) == (400, "bad_form")


@pytest.mark.parametrize("route", ROUTES)
def test_unsupported_body(shared_client: TestClient, shared_bearers: Bearers, route: str) -> None:
    """A body of another media type gets 415."""
    response = shared_client.post(route, headers=shared_bearers["ana"], json={"url": "https://example.org/image.jpg"})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_body")


def test_top_k_out_of_range(shared_client: TestClient, shared_bearers: Bearers, sample: bytes) -> None:
    """The problem document names an invalid query parameter."""
    response = shared_client.post("/v1/predictions?top_k=0", headers=shared_bearers["ana"], **_upload(sample))
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert response.json()["errors"][0]["field"] == "query.top_k"


def test_queue_full(make_client: Any, settings: Any, log_in: Any, sample: bytes) -> None:
    """When the queue is full, the gateway responds with 503 and Retry-After."""
    model = settings.model.model_copy(update={"url": "stub://?latency_ms=300", "workers": 1, "queue_limit": 0})
    client = make_client(model=model)
    headers = log_in(client)

    def send(_: int) -> Any:
        return client.post("/v1/predictions", headers=headers, **_upload(sample))

    responses: list[Any] = []
    with ThreadPoolExecutor(4) as pool:
        while len(responses) < 40 and all(response.status_code == 200 for response in responses):
            responses += pool.map(send, range(4))  # on a busy machine they may arrive one after another
    shed = [response for response in responses if response.status_code == 503]
    assert any(response.status_code == 200 for response in responses)
    assert shed
    assert all(response.json()["code"] == "overloaded" for response in shed)
    assert all(int(response.headers["Retry-After"]) >= 1 for response in shed)


@pytest.mark.parametrize("query", ["", "?top_k=100"])
def test_responses_have_the_documented_fields(
    client: TestClient, bearer: dict[str, str], sample: bytes, query: str
) -> None:
    """A response has all fields of the documented schema and no other, with values of their types."""
    body = client.post(f"/v1/predictions{query}", headers=bearer, **_upload(sample)).json()
    assert PredictionResponse.model_validate(body).model_dump(mode="json") == body
