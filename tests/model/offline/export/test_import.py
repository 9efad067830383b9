from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from model.backends.onnx import OnnxBackend
from model.errors import ImportFailed, ImportLimitExceeded
from model.importing.importer import ImportOptions, import_model
from model.importing.sandbox import Limits
from model.registry.artefact import Manifest
from tests.model.importing.hdf5_files import Dataset, Group, write_hdf5
from tests.model.offline.conftest import ignores_array_copies
from tests.support.paths import ROOT

pytestmark = [pytest.mark.keras, ignores_array_copies]

PYTHON = Path(sys.executable)
CLASSES = ("field", "lake")


def save_classifier(folder: Path) -> Path:
    """Save a classifier of 64x64 images as an .h5 file, with the class names and the input beside it."""
    image = keras.Input((64, 64, 3))
    features = keras.layers.Conv2D(4, 8, strides=8, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(pooled))
    model.save(folder / "model.h5")
    recorded = {"classes": CLASSES, "input": {"width": 64, "height": 64, "resize_filter": "bilinear"}}
    (folder / "metrics.json").write_text(json.dumps(recorded))
    return folder / "model.h5"


def write_images(folder: Path) -> Path:
    """Write eight images of each class."""
    generator = np.random.default_rng(4)
    for name, level in zip(CLASSES, (60, 180), strict=True):
        (folder / name).mkdir(parents=True)
        for index in range(8):
            pixels = generator.integers(level - 50, level + 50, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The artefact of an .h5 file, imported in the sandbox with labelled images."""
    folder = tmp_path_factory.mktemp("import")
    file, data = save_classifier(folder), write_images(folder / "data")
    out = folder / "artefacts" / "tiny-v1.0"
    return out, import_model(ImportOptions(file, out, "tiny", "1.0", data=data), PYTHON)


def test_h5_file_becomes_an_artefact_that_serves(imported: tuple[Path, Manifest]) -> None:
    """Keras loads the .h5 file in the sandbox, and the back end serves the exported graph."""
    out, manifest = imported
    assert manifest.results["agreement"]["images"] >= 64
    backend = OnnxBackend(out)
    assert backend.predict(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 2)
    backend.close()
    assert list(out.parent.iterdir()) == [out]


def test_golden_set_measures_what_fitting_left_out(imported: tuple[Path, Manifest]) -> None:
    """Half of the images fit the confidence; accuracy, calibration, latency and memory are measured on the rest."""
    manifest = imported[1]
    golden: dict[str, Any] = dict(manifest.results["golden"])
    assert golden["images"] == 8
    assert manifest.results["confidence"]["validation_images"]["clean"] == 8
    assert 0 <= golden["accuracy"] <= 1
    assert 0 <= golden["ece"] <= 1
    assert 0 < golden["latency_ms"]["median"] <= golden["latency_ms"]["p95"]
    assert 0 <= golden["memory_mb"] < 1000
    assert manifest.confidence.temperature > 0


def test_weights_that_do_not_fit_the_model_are_rejected(tmp_path: Path) -> None:
    """A file that passes the allow-list but that Keras cannot load is rejected, and leaves no files."""
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(ROOT / "tests" / "model" / "fixtures" / "keras_3_7_0.keras") as original:
        members = {name: original.read(name) for name in ("metadata.json", "config.json")}
    members["model.weights.h5"] = write_hdf5(Group({"layers": Group({"vars": Dataset()})}))
    with zipfile.ZipFile(path, "w") as changed:
        for name, data in members.items():
            changed.writestr(name, data)
    with pytest.raises(ImportFailed, match="cannot load the model"):
        import_model(ImportOptions(path, tmp_path / "out", "tiny", "1"), PYTHON)
    assert list(tmp_path.iterdir()) == [path]


def save_amplifier(folder: Path) -> Path:
    """Save a file of a few kilobytes whose model enlarges each image to 32 GB."""
    image = keras.Input((64, 64, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.UpSampling2D(820)(image))
    keras.Model(image, keras.layers.Dense(2, activation="softmax")(pooled)).save(folder / "model.keras")
    recorded = {"classes": CLASSES, "input": {"width": 64, "height": 64, "resize_filter": "bilinear"}}
    (folder / "metrics.json").write_text(json.dumps(recorded))
    return folder / "model.keras"


@pytest.mark.parametrize(
    ("save", "limits"),
    [
        (save_amplifier, Limits()),
        (save_classifier, Limits(cpu_seconds=2)),
        (save_classifier, Limits(wall_seconds=1)),
        (save_classifier, Limits(file_bytes=4096)),
    ],
    ids=["memory", "processor", "time", "file"],
)
def test_a_model_that_exceeds_a_limit_is_rejected(save: Callable[[Path], Path], limits: Limits, tmp_path: Path) -> None:
    """An import that exceeds its limit of memory, CPU time, time or file size fails and leaves no artefact."""
    file, out = save(tmp_path), tmp_path / "out" / "artefact"
    with pytest.raises(ImportLimitExceeded):
        import_model(ImportOptions(file, out, "tiny", "1.0"), PYTHON, limits)
    assert list(out.parent.iterdir()) == []
