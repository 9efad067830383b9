from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import ExportRefused, KerasProcessFailed
from model.imaging.decode import decode_image
from model.offline.export import ExportOptions
from model.offline.keras_process import run_in_keras
from model.registry.artefact import read_manifest

keras = pytest.importorskip("keras", reason="needs the Keras environment")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from model.offline.export.build import export  # noqa: E402  (needs TensorFlow)
from model.offline.export.convert import load_classifier, to_onnx  # noqa: E402

pytestmark = [
    pytest.mark.keras,
    # Keras 3.15 reads its variables in a way that NumPy 2 is about to drop.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

FIXTURES = Path(__file__).parent / "fixtures"
OLD_MODEL = FIXTURES / "keras_3_7_0.keras"
SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.fixture(scope="module")
def stored() -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [n, 256, 256, 3], and what Keras 3.7.0 answered for them, float32 [n, 21]."""
    kept = np.load(FIXTURES / "keras_3_7_0_expected.npz")
    samples = [decode_image((SAMPLES / name).read_bytes()).pixels for name in kept["sample_names"]]
    images = np.concatenate([kept["patterns"], np.stack(samples)])
    return images, np.concatenate([kept["pattern_probabilities"], kept["sample_probabilities"]])


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Keras 3.7.0 file as the command line exports it: in a child process."""
    out = tmp_path_factory.mktemp("artefacts") / "tiny-v1.0"
    options = {"model": str(OLD_MODEL), "out": str(out), "name": "tiny", "version": "1.0", "images": str(SAMPLES)}
    run_in_keras("model.offline.export", options, Path(sys.executable))
    return out


@pytest.fixture(scope="module")
def session(artefact: Path) -> Any:
    return onnxruntime.InferenceSession(artefact / "model.onnx", providers=["CPUExecutionProvider"])


def options(model: Path, out: Path) -> ExportOptions:
    return ExportOptions(model=str(model), out=str(out), name="tiny", version="1.0")


def test_a_file_of_keras_3_7_answers_as_it_did_there(stored: tuple[np.ndarray, np.ndarray]) -> None:
    """A .keras file saved by Keras 3.7.0 loads in the pinned Keras and answers the same to 1e-5."""
    images, expected = stored
    answered = load_classifier(OLD_MODEL).predict(images, verbose=0)
    assert len(set(expected.argmax(axis=1))) >= 5
    assert np.abs(answered - expected).max() <= 1e-5


def test_the_onnx_graph_answers_as_keras_3_7_did(session: Any, stored: tuple[np.ndarray, np.ndarray]) -> None:
    """ONNX Runtime gives the probabilities that Keras 3.7.0 stored, to 1e-4, in any batch size."""
    images, expected = stored
    together = session.run(["probabilities"], {"image": images.astype(np.float32)})[0]
    alone = session.run(["probabilities"], {"image": images[:1].astype(np.float32)})[0]
    assert np.abs(together - expected).max() <= 1e-4
    assert np.abs(alone - expected[:1]).max() <= 1e-4


def test_the_graph_asks_for_the_image_only(session: Any) -> None:
    """The inputs that the normalisation constants leave behind are gone."""
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("image", "tensor(float)", ["n", 256, 256, 3])
    ]


def test_the_graph_answers_probabilities_and_features(session: Any) -> None:
    """The outputs are named, and the features keep their rows, columns and channels last."""
    shapes = {value.name: value.shape for value in session.get_outputs()}
    assert shapes == {"probabilities": ["n", 21], "features": ["n", 8, 8, 128]}


def test_the_manifest_tells_where_the_artefact_came_from(artefact: Path) -> None:
    """The manifest holds the agreement, the versions of both sides and the digests of the files."""
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


def test_an_existing_artefact_is_never_overwritten(artefact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The export process refuses an existing folder with one line on stderr, and TensorFlow adds none."""
    before = {path.name: path.stat().st_mtime_ns for path in artefact.iterdir()}
    with pytest.raises(KerasProcessFailed):
        run_in_keras(
            "model.offline.export",
            {"model": str(OLD_MODEL), "out": str(artefact), "name": "tiny", "version": "1.0"},
            Path(sys.executable),
        )
    assert capfd.readouterr().err == f"error: {artefact} exists. Give another --out, or another version.\n"
    assert {path.name: path.stat().st_mtime_ns for path in artefact.iterdir()} == before


def test_a_graph_that_answers_otherwise_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """A conversion that changed one bias is found by the comparison, and no folder is left behind."""

    def tampered(model: Any) -> bytes:
        graph = onnx.load_from_string(to_onnx(model))
        bias = next(value for value in graph.graph.initializer if list(value.dims) == [21])
        changed = onnx.numpy_helper.to_array(bias).copy()
        changed[0] += 0.5
        bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
        return bytes(graph.SerializeToString())

    with pytest.raises(ExportRefused, match="differs from the model"):
        export(options(OLD_MODEL, tmp_path / "out"), convert=tampered)
    assert list(tmp_path.iterdir()) == []


def stack(image: Any) -> Any:
    """Convolutions with a squeeze-and-excitation in between, whose pooling is not the last one."""
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


def features_by_hand(model: Any, images: np.ndarray) -> np.ndarray:
    """What the layer named "features" gives, asked for in a way of its own."""
    nests = [layer for layer in model.layers if layer.name == "backbone"]
    inner = nests[0] if nests else model
    if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers):
        images = images / np.float32(255)
    return np.asarray(keras.Model(inner.input, inner.get_layer("features").output)(images))


@pytest.mark.parametrize("build", [flat, nested, nested_with_pooling, sequential, in_lists])
def test_features_are_found_however_the_model_is_built(build: Callable[[], Any], tmp_path: Path) -> None:
    """The features are what the last global pooling averages, be it in the model, in a sub-model or in a sequence."""
    keras.utils.set_random_seed(3)
    build().save(tmp_path / "model.keras")
    model = load_classifier(tmp_path / "model.keras")
    images = np.random.default_rng(3).uniform(0, 255, (3, 256, 256, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(model), providers=["CPUExecutionProvider"])
    probabilities, features = session.run(["probabilities", "features"], {"image": images})
    assert features.shape == (3, 8, 8, 6)
    np.testing.assert_allclose(features, features_by_hand(model, images), rtol=1e-4, atol=1e-3)
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
        (smaller_input, "must have one of shape \\(None, 256, 256, 3\\)"),
        (two_outputs, "must have one of shape \\(None, classes\\)"),
        (map_output, "must have one of shape \\(None, classes\\)"),
        (sigmoid_output, "softmax"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(build: Callable[[], Any], reason: str, tmp_path: Path) -> None:
    """Other inputs, other outputs and heads without features are refused in words, and nothing is written."""
    source = tmp_path / "model.keras"
    build().save(source)
    with pytest.raises(ExportRefused, match=reason):
        export(options(source, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == [source]


def test_code_inside_a_model_file_is_refused(tmp_path: Path) -> None:
    """A Lambda layer's bytecode is not loaded."""
    source = tmp_path / "model.keras"
    image = keras.Input((256, 256, 3))
    keras.Model(image, softmax()(keras.layers.Lambda(lambda x: x[:, 0, 0])(image))).save(source)
    with pytest.raises(ExportRefused, match="cannot load the model"):
        export(options(source, tmp_path / "out"))


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "absent.keras"])
def test_only_keras_files_are_opened(name: str, tmp_path: Path) -> None:
    """Text that calls itself .keras, other formats and missing files never reach Keras' loader."""
    (tmp_path / "model.keras").write_text("not a zip file")
    shutil.copyfile(OLD_MODEL, tmp_path / "model.h5")
    with pytest.raises(ExportRefused, match=r"is not a \.keras file"):
        export(options(tmp_path / name, tmp_path / "out"))
