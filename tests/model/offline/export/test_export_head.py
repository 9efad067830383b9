"""The head that the export extracts, and its explanations compared with TensorFlow's."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from model.backends.open import open_backend
from model.explanation.grad_cam import compute_grad_cam
from model.explanation.head import HEAD_FILE, Head
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.offline.export import ExportOptions
from model.offline.export.build import export
from model.offline.export.convert import load_classifier
from model.offline.export.head import extract_head, measure_offset
from model.registry.artefact import read_manifest
from tests.model.offline.conftest import ignores_array_copies

pytestmark = [pytest.mark.keras, ignores_array_copies]

Dense, Dropout = keras.layers.Dense, keras.layers.Dropout


def build(*head: Any, side: int = 64, classes: int = 5) -> Any:
    """Build a small classifier: global average pooling, `head` and, unless `classes` is 0, a softmax of `classes`."""
    image = keras.Input((side, side, 3))
    hidden = keras.layers.Rescaling(1 / 255)(image)
    hidden = keras.layers.Conv2D(16, 8, strides=8, activation="relu", name="features")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
    for layer in head:
        hidden = layer(hidden)
    return keras.Model(image, Dense(classes, activation="softmax", name="probabilities")(hidden) if classes else hidden)


def differentiate_with_tensorflow(model: Any, features: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Compute a Grad-CAM map with GradientTape through the model's own layers after the layer "pool"."""
    last = model.get_layer("probabilities")
    hidden = keras.Input(features.shape)
    logits = model.get_layer("pool")(hidden)
    names = [layer.name for layer in model.layers]
    for layer in model.layers[names.index("pool") + 1 : names.index("probabilities")]:
        logits = layer(logits)
    before = keras.Model(hidden, logits)
    tensor = tf.constant(features[None])
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        logit = (before(tensor, training=False) @ last.kernel + last.bias)[0, index]
    weights = np.asarray(tape.gradient(logit, tensor)).mean(axis=(1, 2))[0]
    heat: NDArray[np.float32] = np.maximum((features * weights).sum(axis=-1), 0)
    return heat


def relative_difference(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(actual - expected).max() / expected.max())


HEADS: dict[str, Callable[[], list[Any]]] = {
    "one layer": lambda: [Dropout(0.5)],
    "two layers": lambda: [Dense(12, activation="relu"), Dropout(0.3)],
    "three layers": lambda: [Dense(12, activation="relu"), Dense(9, use_bias=False), keras.layers.ReLU()],
    "linear layer": lambda: [Dense(12), Dense(9), keras.layers.Activation("relu")],
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_explanation_equals_tensorflow_s(make: Callable[[], list[Any]]) -> None:
    """For heads of one to three dense layers, the map of each class equals the one from TensorFlow's gradient."""
    keras.utils.set_random_seed(3)
    model = build(*make())
    head = extract_head(model)
    assert head is not None
    features = np.random.default_rng(1).uniform(0, 1, (4, 5, 16)).astype(np.float32)
    compared = 0
    for index in range(5):
        expected = differentiate_with_tensorflow(model, features, index)
        if expected.any():
            assert relative_difference(compute_grad_cam(head, features, index), expected) <= 1e-4
            compared += 1
    assert compared >= 2


@pytest.fixture(scope="module")
def shipped(artefact_folder: Path) -> tuple[Any, Head]:
    """The shipped model, and its head."""
    model = load_classifier(artefact_folder / "model.keras")
    head = extract_head(model)
    assert head is not None
    return model, head


@pytest.fixture(scope="module")
def features(artefact_folder: Path, samples: list[Path]) -> NDArray[np.float32]:
    """The feature maps of the samples, as the served graph computes them."""
    pixels = np.stack([decode_image(path.read_bytes(), DEFAULT_INPUT).pixels for path in samples])
    with closing(open_backend(f"onnx://{artefact_folder}")) as backend:
        return backend.predict_with_features(pixels)[1]


def test_explanations_of_the_shipped_model_equal_tensorflow_s(
    shipped: tuple[Any, Head], features: NDArray[np.float32]
) -> None:
    """For the best and the second-best class of each sample, the difference is at most 1e-4 of the map's maximum."""
    model, head = shipped
    for maps in features:
        for index in np.argsort(-head.compute_logits(maps.mean(axis=(0, 1))))[:2]:
            expected = differentiate_with_tensorflow(model, maps, int(index))
            assert relative_difference(compute_grad_cam(head, maps, int(index)), expected) <= 1e-4


def test_random_head_changes_the_explanations_of_the_shipped_model(
    shipped: tuple[Any, Head], features: NDArray[np.float32]
) -> None:
    """With shuffled weights in the head, the maps correlate little with the original ones (Adebayo et al., 2018)."""
    model, head = shipped
    randomised = keras.models.clone_model(model)
    randomised.set_weights(model.get_weights())
    for name in ("hidden", "probabilities"):
        kernel, bias = model.get_layer(name).get_weights()
        shuffled = np.random.default_rng(1).permutation(kernel.ravel()).reshape(kernel.shape)
        randomised.get_layer(name).set_weights([shuffled, bias])
    other = extract_head(randomised)
    assert other is not None
    correlations = []
    for maps in features:
        index = int(head.compute_logits(maps.mean(axis=(0, 1))).argmax())
        original, changed = (compute_grad_cam(each, maps, index).ravel() for each in (head, other))
        correlations.append(np.corrcoef(original.argsort().argsort(), changed.argsort().argsort())[0, 1])
    assert np.mean(correlations) < 0.5


UNSUPPORTED: dict[str, Callable[[], Any]] = {
    "batch normalisation": lambda: build(Dense(12), keras.layers.BatchNormalization()),
    "other activation": lambda: build(Dense(12, activation="tanh")),
    "clipped ReLU": lambda: build(Dense(12), keras.layers.ReLU(max_value=6)),
    "activation before the first layer": lambda: build(keras.layers.ReLU()),
    "second softmax": lambda: build(Dense(5, activation="softmax"), keras.layers.Softmax(), classes=0),
    "sigmoid": lambda: build(Dense(5, activation="sigmoid"), classes=0),
}


@pytest.mark.parametrize("make", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_other_heads_are_not_extracted(make: Callable[[], Any]) -> None:
    """A head with other layers or activations is not extracted, because its maps would be wrong."""
    assert extract_head(make()) is None


def test_softmax_may_be_a_layer_of_its_own() -> None:
    """A linear layer followed by a softmax layer is extracted like one layer with softmax."""
    head = extract_head(build(Dense(5), keras.layers.Softmax(), classes=0))
    assert head is not None
    assert [layer.kernel.shape for layer in head.layers] == [(16, 5)]


def save(model: Any, path: Path) -> Path:
    model.save(path)
    classes = [f"class {number}" for number in range(model.output_shape[-1])]
    size = {"width": model.input_shape[2], "height": model.input_shape[1], "resize_filter": "bicubic"}
    path.with_name("metrics.json").write_text(json.dumps({"classes": classes, "input": size}))
    return path


def run_export(source: Path, out: Path) -> Path:
    export(ExportOptions(model=str(source), out=str(out), name="small", version="1.0"))
    return out


def test_export_writes_a_head_that_the_gateway_reads(tmp_path: Path) -> None:
    """The opened artefact computes the same explanation as the Keras model."""
    model = build(Dense(12, activation="relu"))
    folder = run_export(save(model, tmp_path / "model.keras"), tmp_path / "small-v1.0")
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    with closing(open_backend(f"onnx://{folder}")) as backend:
        probabilities, features = backend.predict_with_features(pixels)
        assert backend.head is not None
        actual = compute_grad_cam(backend.head, features[0], int(probabilities.argmax()))
    expected = differentiate_with_tensorflow(model, features[0], int(probabilities.argmax()))
    assert relative_difference(actual, expected) <= 1e-4


def test_model_with_another_head_is_exported_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The export reports that predictions cannot be explained, and writes an artefact without a head."""
    source = save(build(Dense(12, activation="tanh")), tmp_path / "model.keras")
    folder = run_export(source, tmp_path / "small-v1.0")
    assert "cannot be explained" in capsys.readouterr().out
    assert HEAD_FILE not in read_manifest(folder).files
    assert not (folder / HEAD_FILE).exists()
    with closing(open_backend(f"onnx://{folder}")) as backend:
        assert backend.head is None


def test_head_that_does_not_reproduce_the_probabilities_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No head is written if an operation outside the layers makes the extracted head predict something else."""
    image = keras.Input((64, 64, 3))
    hidden = keras.layers.Conv2D(16, 8, strides=8, activation="relu")(image)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden) / 200
    probabilities = Dense(5, activation="softmax")(Dense(12)(hidden) ** 2)
    folder = run_export(save(keras.Model(image, probabilities), tmp_path / "model.keras"), tmp_path / "small-v1.0")
    assert "cannot be explained" in capsys.readouterr().out
    assert not (folder / HEAD_FILE).exists()


@pytest.mark.parametrize(("moved", "offset"), [((0, 0), (0, 0)), ((4, 0), (0.5, 0)), ((2, 6), (0.25, 0.75))])
def test_offset_is_where_the_receptive_fields_lie(moved: tuple[int, int], offset: tuple[float, float]) -> None:
    """The offset is the shift of the features' receptive fields, in units of the 8-pixel stride."""
    image = keras.Input((64, 64, 3))
    rows, columns = moved
    hidden = keras.layers.Cropping2D(((rows, 0), (columns, 0)))(image)
    hidden = keras.layers.ZeroPadding2D(((0, rows), (0, columns)))(hidden)
    hidden = keras.layers.Conv2D(16, 8, strides=8, activation="relu")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    model = keras.Model(image, Dense(5, activation="softmax")(hidden))
    assert measure_offset(model) == pytest.approx(offset, abs=0.1)
