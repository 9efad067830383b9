from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from model.backends.onnx import OnnxBackend
from model.classes import UC_MERCED_CLASSES
from model.errors import ExportRefused, KerasProcessFailed
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from model.offline.export import ExportOptions
from model.offline.export.build import export
from model.offline.export.convert import load_classifier, to_onnx
from model.offline.keras_process import run_in_keras
from model.registry.artefact import read_manifest
from tests.model.offline.conftest import ignores_array_copies
from tests.support.paths import ROOT, SAMPLES

pytestmark = [pytest.mark.keras, ignores_array_copies]

FIXTURES = ROOT / "tests" / "model" / "fixtures"
OLD_MODEL = FIXTURES / "keras_3_7_0.keras"

Expected = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def expected() -> Expected:
    """Images, uint8 [n, 256, 256, 3], and the probabilities that Keras 3.7.0 returned for them, float32 [n, 21]."""
    stored = np.load(FIXTURES / "keras_3_7_0_expected.npz")
    samples = [decode_image((SAMPLES / name).read_bytes(), DEFAULT_INPUT).pixels for name in stored["sample_names"]]
    images = np.concatenate([stored["patterns"], np.stack(samples)])
    return images, np.concatenate([stored["pattern_probabilities"], stored["sample_probabilities"]])


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefact of the Keras 3.7.0 file, exported in a child process as the command line does."""
    out = tmp_path_factory.mktemp("artefacts") / "tiny-v1.0"
    options = {"model": str(OLD_MODEL), "out": str(out), "name": "tiny", "version": "1.0", "images": str(SAMPLES)}
    run_in_keras("model.offline.export", options, Path(sys.executable))
    return out


@pytest.fixture(scope="module")
def session(artefact: Path) -> Any:
    return onnxruntime.InferenceSession(artefact / "model.onnx", providers=["CPUExecutionProvider"])


def options(model: Path, out: Path) -> ExportOptions:
    return ExportOptions(model=str(model), out=str(out), name="tiny", version="1.0")


def test_keras_3_7_file_gives_the_same_probabilities(expected: Expected) -> None:
    """A .keras file saved by Keras 3.7.0 gives the same probabilities, to 1e-5, in the pinned Keras."""
    images, probabilities = expected
    actual = load_classifier(OLD_MODEL).predict(images, verbose=0)
    assert len(set(probabilities.argmax(axis=1))) >= 5
    assert np.abs(actual - probabilities).max() <= 1e-5


def test_onnx_graph_gives_the_probabilities_of_keras_3_7(session: Any, expected: Expected) -> None:
    """ONNX Runtime gives the probabilities of Keras 3.7.0, to 1e-4, for a batch and for a single image."""
    images, probabilities = expected
    together = session.run(["probabilities"], {"image": images})[0]
    alone = session.run(["probabilities"], {"image": images[:1]})[0]
    assert np.abs(together - probabilities).max() <= 1e-4
    assert np.abs(alone - probabilities[:1]).max() <= 1e-4


def test_graph_has_the_image_as_its_only_input(session: Any) -> None:
    """The exported graph takes uint8 pixels, and has no unused inputs for the normalisation constants."""
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("image", "tensor(uint8)", ["n", 256, 256, 3])
    ]


def test_graph_outputs_are_probabilities_and_features_and_their_means(session: Any) -> None:
    """The graph has three named outputs; features are [n, height, width, channels], and pooled is [n, channels]."""
    shapes = {value.name: value.shape for value in session.get_outputs()}
    assert shapes == {"probabilities": ["n", 21], "features": ["n", 8, 8, 128], "pooled": ["n", 128]}


def test_manifest_declares_the_graph_s_input(artefact: Path) -> None:
    """The manifest of an export declares uint8 as the graph's input type."""
    assert json.loads((artefact / "manifest.json").read_text())["input"]["dtype"] == "uint8"


def test_manifest_records_the_origin_of_the_artefact(artefact: Path) -> None:
    """The manifest contains the agreement, the versions of the tools and the digests of the files."""
    manifest = read_manifest(artefact)
    assert manifest.full_name == "tiny-v1.0"
    agreement = manifest.results["agreement"]
    assert agreement["images"] == 64
    assert agreement["real_images"] == len(list(SAMPLES.glob("*.jpg")))
    assert 0 < agreement["largest_difference"] <= agreement["tolerance"] == 1e-4
    assert manifest.tools["saved_by"] == {"keras": "3.7.0"}
    assert manifest.tools["export"]["keras"] == keras.__version__
    recorded = json.loads((artefact / "manifest.json").read_text())["files"]
    for name in ("model.keras", "model.onnx", "MODEL_CARD.md"):
        assert recorded[name]["sha256"] == hashlib.sha256((artefact / name).read_bytes()).hexdigest()
    assert (artefact / "model.keras").read_bytes() == OLD_MODEL.read_bytes()
    assert sorted(path.name for path in artefact.parent.iterdir()) == ["tiny-v1.0"]


def test_existing_artefact_is_not_overwritten(artefact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The export process rejects an existing folder with one line on stderr and no output from TensorFlow."""
    before = {path.name: path.stat().st_mtime_ns for path in artefact.iterdir()}
    with pytest.raises(KerasProcessFailed):
        run_in_keras(
            "model.offline.export",
            {"model": str(OLD_MODEL), "out": str(artefact), "name": "tiny", "version": "1.0"},
            Path(sys.executable),
        )
    assert capfd.readouterr().err == f"error: {artefact} already exists. Choose another --out or another version.\n"
    assert {path.name: path.stat().st_mtime_ns for path in artefact.iterdir()} == before


def test_graph_with_other_probabilities_is_rejected_without_leaving_files(tmp_path: Path) -> None:
    """A conversion that changed one bias fails the comparison with the model, and leaves no files."""

    def convert_and_tamper(model: Any) -> bytes:
        graph = onnx.load_from_string(to_onnx(model))
        bias = next(value for value in graph.graph.initializer if list(value.dims) == [21])
        values = onnx.numpy_helper.to_array(bias).copy()
        values[0] += 0.5
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return bytes(graph.SerializeToString())

    with pytest.raises(ExportRefused, match="differs from the model"):
        export(options(OLD_MODEL, tmp_path / "out"), convert=convert_and_tamper)
    assert list(tmp_path.iterdir()) == []


def stack(image: Any) -> Any:
    """Convolutions around a squeeze-and-excitation block, whose global pooling is not the model's last one."""
    hidden = keras.layers.Conv2D(4, 8, strides=8, activation="relu")(image)
    squeezed = keras.layers.Reshape((1, 1, 4))(keras.layers.GlobalAveragePooling2D()(hidden))
    hidden = keras.layers.multiply([hidden, keras.layers.Conv2D(4, 1, activation="sigmoid")(squeezed)])
    return keras.layers.Conv2D(6, 4, strides=4, activation="relu", name="features")(hidden)


def backbone(pooled: bool) -> Any:
    image = keras.Input((256, 256, 3))
    features = stack(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(features) if pooled else features, name="backbone")


def softmax() -> Any:
    return keras.layers.Dense(21, activation="softmax")


def flat() -> Any:
    image = keras.Input((256, 256, 3))
    return keras.Model(image, softmax()(keras.layers.GlobalAveragePooling2D()(stack(image))))


def nested() -> Any:
    image = keras.Input((256, 256, 3))
    scaled = keras.layers.Rescaling(1 / 255)(image)
    return keras.Model(image, softmax()(keras.layers.GlobalAveragePooling2D()(backbone(pooled=False)(scaled))))


def nested_with_pooling() -> Any:
    image = keras.Input((256, 256, 3))
    return keras.Model(image, softmax()(backbone(pooled=True)(image)))


def sequential() -> Any:
    pooling = keras.layers.GlobalAveragePooling2D()
    return keras.Sequential([keras.Input((256, 256, 3)), backbone(pooled=False), pooling, softmax()])


def in_lists() -> Any:
    model = flat()
    return keras.Model([model.input], [model.output])


def compute_features(model: Any, images: np.ndarray) -> np.ndarray:
    """Compute the output of the layer named "features" without the code under test."""
    nested_models = [layer for layer in model.layers if layer.name == "backbone"]
    inner = nested_models[0] if nested_models else model
    if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers):
        images = images / np.float32(255)
    return np.asarray(keras.Model(inner.input, inner.get_layer("features").output)(images))


@pytest.mark.parametrize("build", [flat, nested, nested_with_pooling, sequential, in_lists])
def test_features_are_found_in_every_kind_of_model(build: Callable[[], Any], tmp_path: Path) -> None:
    """The features are the input of the last global pooling, in flat, nested and sequential models."""
    keras.utils.set_random_seed(3)
    build().save(tmp_path / "model.keras")
    model = load_classifier(tmp_path / "model.keras")
    images = np.random.default_rng(3).integers(0, 256, (3, 256, 256, 3), np.uint8)
    session = onnxruntime.InferenceSession(to_onnx(model), providers=["CPUExecutionProvider"])
    probabilities, features = session.run(["probabilities", "features"], {"image": images})
    assert features.shape == (3, 8, 8, 6)
    np.testing.assert_allclose(features, compute_features(model, images), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(probabilities, np.asarray(model(images)), atol=1e-5)


def without_pooling() -> Any:
    image = keras.Input((256, 256, 3))
    return keras.Model(image, softmax()(keras.layers.Flatten()(stack(image))))


def smaller_input() -> Any:
    image = keras.Input((128, 128, 3))
    return keras.Model(image, softmax()(keras.layers.GlobalAveragePooling2D()(image)))


def two_outputs() -> Any:
    image = keras.Input((256, 256, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, [softmax()(pooled), softmax()(pooled)])


def map_output() -> Any:
    image = keras.Input((256, 256, 3))
    return keras.Model(image, keras.layers.Conv2D(21, 1, activation="softmax")(image))


def sigmoid_output() -> Any:
    image = keras.Input((256, 256, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, keras.layers.Dense(21, activation="sigmoid")(pooled))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (without_pooling, "No GlobalAveragePooling2D"),
        (smaller_input, "must be \\(None, 256, 256, 3\\)"),
        (two_outputs, "must have one output of shape \\(None, classes\\)"),
        (map_output, "must have one output of shape \\(None, classes\\)"),
        (sigmoid_output, "softmax"),
    ],
)
def test_model_that_cannot_be_served_is_rejected(build: Callable[[], Any], reason: str, tmp_path: Path) -> None:
    """Other inputs, other outputs and heads without pooling are rejected with the reason, and nothing is written."""
    source = tmp_path / "model.keras"
    build().save(source)
    with pytest.raises(ExportRefused, match=reason):
        export(options(source, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == [source]


def test_input_of_another_size_is_exported_when_it_is_recorded(tmp_path: Path) -> None:
    """A model of 128x128 pixels is exported when the metrics.json next to it records that input."""
    source = tmp_path / "model.keras"
    smaller_input().save(source)
    recorded = {"width": 128, "height": 128, "resize_filter": "bilinear"}
    source.with_name("metrics.json").write_text(json.dumps({"classes": list(UC_MERCED_CLASSES), "input": recorded}))
    export(options(source, tmp_path / "out"))
    assert read_manifest(tmp_path / "out").input_spec == InputSpec(128, 128, "bilinear")
    with closing(OnnxBackend(tmp_path / "out")) as backend:
        assert backend.predict(np.zeros((1, 128, 128, 3), np.uint8)).shape == (1, 21)


def test_code_in_a_model_file_is_rejected(tmp_path: Path) -> None:
    """A file with the bytecode of a Lambda layer is not loaded."""
    source = tmp_path / "model.keras"
    image = keras.Input((256, 256, 3))
    keras.Model(image, softmax()(keras.layers.Lambda(lambda x: x[:, 0, 0])(image))).save(source)
    with pytest.raises(ExportRefused, match="cannot load the model"):
        export(options(source, tmp_path / "out"))


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "absent.keras"])
def test_only_keras_files_are_opened(name: str, tmp_path: Path) -> None:
    """A text file named .keras, a file of another format and a missing file are rejected."""
    (tmp_path / "model.keras").write_text("not a zip file")
    shutil.copyfile(OLD_MODEL, tmp_path / "model.h5")
    with pytest.raises(ExportRefused, match=r"is not a \.keras file"):
        export(options(tmp_path / name, tmp_path / "out"))
