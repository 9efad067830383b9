"""The pipeline is not tied to one data set: 5 classes and 96 pixels are trained, exported, served and explained."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.imaging.input_spec import InputSpec
from model.offline.export import ExportOptions
from model.offline.keras_process import run_in_keras
from model.offline.negatives.catalogue import list_generated
from model.offline.roles import Role
from model.offline.train import Stage, TrainOptions
from model.registry.artefact import Manifest, read_manifest
from tests.support.gateway import running_gateway
from tests.support.paths import MODEL_URL

pytestmark = [
    pytest.mark.keras,
    # Keras 3.15 reads its variables in a way that NumPy 2 is about to drop.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

SIDE = 96
COLOURS = {
    "field": (70, 150, 60),
    "lake": (40, 70, 150),
    "road": (120, 120, 125),
    "sand": (210, 190, 140),
    "scrub": (120, 110, 60),
}


def make_scene(generator: np.random.Generator, name: str) -> NDArray[np.uint8]:
    """Noise in two sizes of grain around the colour of a class."""
    coarse = generator.normal(0, 18, (12, 12, 1)).repeat(SIDE // 12, axis=0).repeat(SIDE // 12, axis=1)
    pixels = np.asarray(COLOURS[name]) + coarse + generator.normal(0, 10, (SIDE, SIDE, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def make_photograph(generator: np.random.Generator) -> NDArray[np.uint8]:
    """A few large smooth discs on a gradient."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    image = generator.uniform(0, 255, 3) + (x / SIDE)[..., None] * generator.uniform(-120, 120, 3)
    for left, top, radius in generator.uniform(10, 50, (3, 3)):
        image[np.hypot(x - left, y - top) < radius] = generator.uniform(0, 255, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, photographs in 24 categories, and the weights of the shipped model's backbone."""
    root, generator = tmp_path_factory.mktemp("pipeline"), np.random.default_rng(9)
    images = [
        (root / "data" / split / name / f"{index}.png", make_scene(generator, name))
        for name in COLOURS
        for split, count in (("train", 12), ("test", 4))
        for index in range(count)
    ]
    images += [(root / "photos" / f"kind{index}" / "0.png", make_photograph(generator)) for index in range(24)]
    for path, pixels in images:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    backbone = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    shipped = keras.models.load_model(Path(MODEL_URL.removeprefix("onnx://")) / "model.keras", compile=False)
    backbone.set_weights(shipped.get_weights()[: len(backbone.weights)])
    backbone.save_weights(root / "backbone.weights.h5")
    return root


@pytest.fixture(scope="module")
def artefact(folder: Path) -> Path:
    """The model, trained for one epoch, and exported with everything that is fitted."""
    training = TrainOptions(
        data=str(folder / "data"),
        init=str(folder / "backbone.weights.h5"),
        out=str(folder / "run"),
        stages=(Stage(SIDE, 1),),
        batch_size=8,
        validation_fraction=0.25,
        input_size=SIDE,
    )
    exporting = ExportOptions(
        model=str(folder / "run" / "model.keras"),
        out=str(folder / "tiny-v1.0"),
        name="tiny",
        version="1.0",
        data=str(folder / "data"),
        photographs=str(folder / "photos"),
        origin="synthetic, public domain",
    )
    run_in_keras("model.offline.train", asdict(training), Path(sys.executable))
    run_in_keras("model.offline.export", asdict(exporting), Path(sys.executable))
    return folder / "tiny-v1.0"


@pytest.fixture(scope="module")
def manifest(artefact: Path) -> Manifest:
    return read_manifest(artefact)


@pytest.fixture(scope="module")
def client(artefact: Path) -> Iterator[httpx.Client]:
    """A client of a gateway that serves the artefact."""
    with running_gateway(MODEL__URL=f"onnx://{artefact}") as gateway:
        yield gateway.client()


def predict(client: httpx.Client, pixels: NDArray[np.uint8], query: str = "") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    response = client.post("/v1/predictions" + query, content=buffer.getvalue(), headers={"Content-Type": "image/png"})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_manifest_holds_what_was_fitted(manifest: Manifest) -> None:
    """The manifest has the classes, the input, the temperature, the gate and a score for each validation image."""
    assert (manifest.classes, manifest.input_spec) == (tuple(COLOURS), InputSpec(SIDE, SIDE))
    confidence = manifest.confidence
    assert 0.1 <= confidence.temperature <= 10
    assert confidence.sets is not None
    assert len(confidence.sets.scores) == 5 * 3
    assert confidence.abstention.gate is not None
    assert confidence.abstention.gate.weights.shape == (1280,)
    assert manifest.results["confidence"]["test"]["images"] == 20
    groups = {group["name"]: group["images"] for group in manifest.results["gate"]["groups"]}
    assert groups["test images"] == 20
    assert {"photographs", "documents", "screenshots", "noise"} <= set(groups)


def test_card_describes_what_was_fitted(artefact: Path, folder: Path) -> None:
    """The card of the run is followed by sections on calibration, abstention and prediction sets."""
    card = (artefact / "MODEL_CARD.md").read_text()
    assert card.startswith((folder / "run" / "MODEL_CARD.md").read_text())
    for text in ("## Calibration", "## Abstention", "## Prediction sets", "Near misses", "synthetic, public domain"):
        assert text in card


def test_gateway_serves_and_explains(client: httpx.Client) -> None:
    """A scene gets a prediction of the five classes, a prediction set and an explanation."""
    body = predict(client, make_scene(np.random.default_rng(1), "lake"), "?top_k=5&coverage=0.9&explain=true")
    assert {row["label"] for row in body["predictions"]} == set(COLOURS)
    assert sum(row["probability"] for row in body["predictions"]) == pytest.approx(1, abs=1e-3)
    assert body["prediction_set"]
    assert (body["explanation"]["width"], body["explanation"]["height"]) == (3, 3)
    assert body["reason"] != "not_an_aerial_image"


def test_gateway_abstains(client: httpx.Client) -> None:
    """Most documents and screenshots are refused, and scenes are not."""
    generated = list_generated(Role.TEST, 1, (SIDE, SIDE))
    pages = [image.make() for image in generated if image.kind.category in ("documents", "screenshots")]
    generator = np.random.default_rng(2)
    refused, scenes = (
        [predict(client, pixels)["reason"] == "not_an_aerial_image" for pixels in images]
        for images in (pages, [make_scene(generator, name) for name in COLOURS])
    )
    assert np.mean(refused) >= 0.6
    assert np.mean(scenes) <= 0.4
