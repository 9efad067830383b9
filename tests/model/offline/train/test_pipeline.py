"""The pipeline with another data set, of 5 classes and 96 pixels: training, export, serving and explanation."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.imaging.input_spec import InputSpec
from model.offline.export import ExportOptions
from model.offline.export.build import export
from model.offline.negatives.catalogue import list_generated
from model.offline.negatives.roles import Role
from model.registry.artefact import Manifest, read_manifest
from tests.model.offline.conftest import ignores_array_copies
from tests.model.offline.train.toy_run import COLOURS, COUNTS, SIDE, Resumed, make_scene, read_json
from tests.support.gateway import running_gateway

pytestmark = [pytest.mark.keras, ignores_array_copies]

PHOTOGRAPHS = 24
CHECKED = 64  # images on which the export compares the graph with the model
RESULT_NAMES = ("n", "accuracy", "macro_f1", "loss", "ece")


def make_photograph(generator: np.random.Generator) -> NDArray[np.uint8]:
    """A few large smooth discs on a gradient."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    image = generator.uniform(0, 255, 3) + (x / SIDE)[..., None] * generator.uniform(-120, 120, 3)
    for left, top, radius in generator.uniform(10, 50, (3, 3)):
        image[np.hypot(x - left, y - top) < radius] = generator.uniform(0, 255, 3)
    photograph: NDArray[np.uint8] = np.clip(image, 0, 255).astype(np.uint8)
    return photograph


@pytest.fixture(scope="module")
def artefact(resumed: Resumed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model, exported with everything that is fitted."""
    root, generator = tmp_path_factory.mktemp("pipeline"), np.random.default_rng(9)
    for index in range(PHOTOGRAPHS):
        folder = root / "photos" / f"kind{index}"
        folder.mkdir(parents=True)
        Image.fromarray(make_photograph(generator)).save(folder / "0.png")
    # After so few training steps, rounding errors on generated patterns exceed the tolerance, so compare on scenes.
    (root / "scenes").mkdir()
    for index in range(CHECKED):
        scene = make_scene(generator, list(COLOURS)[index % len(COLOURS)])
        Image.fromarray(scene).save(root / "scenes" / f"{index}.png")
    export(
        ExportOptions(
            model=str(resumed.out / "model.keras"),
            out=str(root / "tiny-v1.0"),
            name="tiny",
            version="1.0",
            images=str(root / "scenes"),
            data=resumed.options.data,
            photographs=str(root / "photos"),
            origin="synthetic, public domain",
        )
    )
    return root / "tiny-v1.0"


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


def test_export_keeps_the_record_of_training(resumed: Resumed, manifest: Manifest) -> None:
    """The artefact contains the classes, the input, the results and the versions that training wrote."""
    metrics = read_json(resumed.out / "metrics.json")
    assert manifest.classes == tuple(COLOURS)
    assert manifest.input_spec == InputSpec(SIDE, SIDE, "lanczos")
    for split in ("validation", "test"):
        assert manifest.results[split] == {name: metrics[split][name] for name in RESULT_NAMES}
    assert manifest.tools["training"] == metrics["tools"]


def test_manifest_holds_what_was_fitted(manifest: Manifest) -> None:
    """The manifest contains the temperature, the gate and a score for each validation image."""
    confidence = manifest.confidence
    assert 0.1 <= confidence.temperature <= 10
    assert confidence.sets is not None
    assert len(confidence.sets.scores) == COUNTS["validation"]
    assert confidence.abstention.gate is not None
    assert confidence.abstention.gate.weights.shape == (1280,)
    assert manifest.results["confidence"]["test"]["images"] == COUNTS["test"]
    groups = {group["name"]: group["images"] for group in manifest.results["gate"]["groups"]}
    assert groups["test images"] == COUNTS["test"]
    assert {"photographs", "documents", "screenshots", "noise"} <= set(groups)


def test_card_describes_what_was_fitted(artefact: Path, resumed: Resumed) -> None:
    """The card of the run is followed by sections on calibration, abstention and prediction sets."""
    card = (artefact / "MODEL_CARD.md").read_text()
    assert card.startswith((resumed.out / "MODEL_CARD.md").read_text())
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
    """A gate that was fitted on 20 scenes rejects documents and screenshots more often than scenes."""
    generated = list_generated(Role.TEST, 1, (SIDE, SIDE))
    pages = [image.make() for image in generated if image.kind.category in ("documents", "screenshots")]
    generator = np.random.default_rng(2)
    refused, scenes = (
        [predict(client, pixels)["reason"] == "not_an_aerial_image" for pixels in images]
        for images in (pages, [make_scene(generator, name) for name in COLOURS])
    )
    assert np.mean(refused) >= np.mean(scenes) + 0.2
    assert np.mean(scenes) <= 0.4
