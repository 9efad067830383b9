"""Explanations from a running gateway and from the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.imaging.input_spec import InputSpec
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.support.gateway import Gateway, make_gateway
from tests.support.paths import FOREST

URL = "/v1/predictions"
LEFT_HALF = [[1.0] * 6 + [0.0] * 6] * 8
RIGHT_HALF = [[0.0] * 6 + [1.0] * 6] * 8


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an input of 12 by 8 pixels, whose map of a class is the amount of that colour in each pixel."""
    return write_tiny_artefact(tmp_path_factory.mktemp("tiny"), InputSpec(12, 8, "box"), with_head=True)


@pytest.fixture(scope="module")
def explaining(tmp_path_factory: pytest.TempPathFactory, artefact: Path) -> Iterator[Gateway]:
    """A gateway with that model."""
    gateway = make_gateway(tmp_path_factory.mktemp("explaining"), MODEL__URL=f"onnx://{artefact}")
    gateway.start()
    yield gateway
    assert gateway.stop() == 0, gateway.log()


@pytest.fixture(scope="module")
def client(explaining: Gateway) -> httpx.Client:
    return explaining.client()


@pytest.fixture(scope="module")
def image() -> bytes:
    """An image whose left half is red and whose right half is dark blue: its label is red."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0], pixels[:, 30:, 2] = 255, 60
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def post(client: httpx.Client, image: bytes, query: str = "", accept: str = "*/*") -> httpx.Response:
    return client.post(URL + query, content=image, headers={"Content-Type": "image/png", "Accept": accept})


def explain(client: httpx.Client, image: bytes, query: str) -> dict[str, Any]:
    body = post(client, image, query).json()
    assert body["label"] == "red"
    explanation: dict[str, Any] = body["explanation"]
    return explanation


def test_explanation_of_the_label(client: httpx.Client, image: bytes) -> None:
    """`explain=true` adds the map of the best class, in rows from top to bottom."""
    expected = {"method": "grad-cam", "label": "red", "width": 12, "height": 8, "offset_x": 0.0, "offset_y": 0.0}
    assert explain(client, image, "?explain=true") == {**expected, "map": LEFT_HALF}
    assert explain(client, image, "?explain=1")["map"] == LEFT_HALF


def test_explanation_of_another_class(client: httpx.Client, image: bytes) -> None:
    """`explain` with the name of a class returns the map of that class; the label stays the same."""
    explanation = explain(client, image, "?explain=blue")
    assert (explanation["label"], explanation["map"]) == ("blue", RIGHT_HALF)


@pytest.mark.parametrize("query", ["", "?explain=false", "?explain=0"])
def test_no_explanation_unless_requested(client: httpx.Client, image: bytes, query: str) -> None:
    """Without `explain`, the member is null and no time is spent on it."""
    body = post(client, image, query).json()
    assert body["explanation"] is None
    assert "explain" not in body["timing"]


def test_unknown_class(client: httpx.Client, image: bytes) -> None:
    """A name that is not one of the model's classes gets a 422 that lists them."""
    response = post(client, image, "?explain=forest")
    assert (response.status_code, response.json()["code"]) == (422, "unknown_label")
    assert "red, green, blue" in response.json()["detail"]


def test_overlay(client: httpx.Client, image: bytes) -> None:
    """`Accept: image/png` returns the model's input overlaid with the map, and the prediction in headers."""
    response = post(client, image, accept="image/png")
    headers = response.headers
    assert response.status_code == 200
    assert headers["Content-Type"] == "image/png"
    assert headers["X-Prediction-Label"] == headers["X-Explained-Label"] == "red"
    assert 0.34 < float(headers["X-Prediction-Confidence"]) <= 1
    assert headers["X-Prediction-Abstained"] == "false"
    assert "X-Prediction-Reason" not in headers
    with Image.open(io.BytesIO(response.content)) as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (12, 8))
        luma = np.asarray(overlay.convert("L"), int)
    assert luma[:, :5].min() - luma[:, 7:].max() > 50
    assert headers["Link"] == f'<{URL}/{headers["X-Prediction-ID"]}>; rel="describedby"'
    recorded = client.get(f"{URL}/{headers['X-Prediction-ID']}").json()
    assert recorded["label"] == "red"


def test_overlay_of_another_class(client: httpx.Client, image: bytes) -> None:
    """With `explain`, the overlay shows the named class, and the header says which."""
    response = post(client, image, "?explain=blue", accept="image/*")
    assert (response.headers["X-Prediction-Label"], response.headers["X-Explained-Label"]) == ("red", "blue")
    with Image.open(io.BytesIO(response.content)) as overlay:
        luma = np.asarray(overlay.convert("L"), int)
    assert luma[:, 7:].min() > luma[:, 0].max()


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json;q=0.4, image/png;q=0.5", "image/png"),
        ("image/png;q=0.4, application/json", "application/json"),
        ("text/html", "application/json"),
    ],
)
def test_negotiation(client: httpx.Client, image: bytes, accept: str, media_type: str) -> None:
    """The type with the higher quality is returned, or JSON if the client accepts neither; `Vary` names Accept."""
    response = post(client, image, accept=accept)
    assert response.headers["Content-Type"] == media_type
    assert "Accept" in response.headers["Vary"]


def test_dry_run_is_never_a_picture(client: httpx.Client, image: bytes) -> None:
    """A dry run draws nothing: it returns the cost as JSON."""
    response = post(client, image, "?dry_run=true&explain=true", accept="image/png")
    assert response.headers["Content-Type"] == "application/json"
    assert response.json()["cost"]["megapixels"] > 0


def test_errors_of_pictures_are_problems(client: httpx.Client) -> None:
    """A client that accepts only PNG still gets errors as problem documents."""
    response = post(client, b"text", accept="image/png")
    assert (response.status_code, response.headers["Content-Type"]) == (415, "application/problem+json")


def test_shipped_model_explains(gateway: Gateway) -> None:
    """A gateway with the shipped model explains with a map and a picture."""
    client, forest = gateway.client(), FOREST.read_bytes()
    response, picture = post(client, forest, "?explain=true"), post(client, forest, accept="image/png")
    explanation = response.json()["explanation"]
    heat = np.array(explanation["map"])
    assert heat.shape == (explanation["height"], explanation["width"]) == (8, 8)
    assert (heat.min(), heat.max()) == (0, 1)
    assert explanation["label"] == response.json()["label"] == picture.headers["X-Explained-Label"]
    assert len(response.content) < 3000
    with Image.open(io.BytesIO(picture.content)) as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (256, 256))


def test_command_writes_the_overlay(explaining: Gateway, image: bytes, tmp_path: Path) -> None:
    """`atalaya predict --explain` prints the prediction and writes the same picture that the gateway returns."""
    (tmp_path / "image.png").write_bytes(image)
    done = explaining.run("predict", "--json", "--explain", str(tmp_path / "out.png"), str(tmp_path / "image.png"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["label"] == "red"
    assert (tmp_path / "out.png").read_bytes() == post(explaining.client(), image, accept="image/png").content


def test_command_explains_one_image(explaining: Gateway, image: bytes, tmp_path: Path) -> None:
    """Several images, or an output that might replace an image, are a usage error: nothing is written."""
    path = tmp_path / "image.png"
    path.write_bytes(image)
    for arguments in (
        ["--explain", str(tmp_path / "out.png"), str(path), str(path)],
        ["--explain", str(path), str(path)],
        ["--explain", str(tmp_path / "photo.jpg"), str(path)],
    ):
        done = explaining.run("predict", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert path.read_bytes() == image
    assert [each.name for each in tmp_path.iterdir()] == ["image.png"]


def test_command_reports_what_it_cannot_do(explaining: Gateway, image: bytes, tmp_path: Path) -> None:
    """An output that cannot be written, and a model that cannot explain, are reported as errors."""
    (tmp_path / "image.png").write_bytes(image)
    (tmp_path / "folder.png").mkdir()
    for target in (tmp_path / "folder.png", tmp_path / "nowhere" / "out.png"):
        done = explaining.run("predict", "--explain", str(target), str(tmp_path / "image.png"))
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {target} cannot be written: ")
        assert done.stderr.count("\n") == 1
    stub = explaining.with_settings(MODEL__URL="stub://")
    done = stub.run("predict", "--explain", str(tmp_path / "out.png"), str(FOREST))
    assert done.returncode == 1
    assert done.stderr.startswith("error: This model cannot explain its predictions")
    assert not (tmp_path / "out.png").exists()
