"""A Keras classifier as an ONNX graph that answers probabilities and the last convolutional features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tf2onnx

from model.errors import ExportRefused
from model.imaging.decode import INPUT_SIZE

OPSET = 18  # the newest that tf2onnx 1.17 writes
_POOLING = keras.layers.GlobalAveragePooling2D
_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


def load_classifier(path: Path) -> keras.Model:
    """Load a .keras file that maps [n, 256, 256, 3] to [n, classes]. Raises ExportRefused.

    Keras' safe mode keeps code in the file from running, but has had holes: load only what you trust.
    """
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # the loader raises nearly any class
        raise ExportRefused(f"Keras {keras.__version__} cannot load the model: {_first_line(error)}") from error
    _check_signature(model)
    # Some files wrap the one input and output in lists or dicts; this view of the same layers does not.
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def to_onnx(model: keras.Model) -> bytes:
    """Convert to a graph from `image` float32 [n, 256, 256, 3] to `probabilities` and `features` [n, h, w, c].

    Raises ExportRefused.
    """
    signature = [tf.TensorSpec((None, *INPUT_SIZE, 3), tf.float32, name="image")]

    def answer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        with _pooled_by(model) as pooled:
            probabilities = model(image, training=False)
        return {"probabilities": probabilities, "features": _last_features(pooled)}

    traced = tf.function(answer, input_signature=signature, autograph=False)
    try:
        graph, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=OPSET)
    except ExportRefused:
        raise
    except Exception as error:  # tracing and tf2onnx raise nearly any class
        raise ExportRefused(f"tf2onnx cannot convert the model: {_first_line(error)}") from error
    _drop_unused_inputs(graph.graph)
    _name_batch(graph.graph)
    return bytes(graph.SerializeToString())


def _check_signature(model: keras.Model) -> None:
    inputs = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    outputs = [tuple(tensor.shape) for tensor in getattr(model, "outputs", None) or ()]
    if inputs != [(None, *INPUT_SIZE, 3)]:
        raise ExportRefused(f"The model's inputs are {inputs}. It must have one of shape (None, 256, 256, 3).")
    if len(outputs) != 1 or len(outputs[0]) != 2 or (outputs[0][1] or 0) < 2:
        raise ExportRefused(f"The model's outputs are {outputs}. It must have one of shape (None, classes), a softmax.")


@contextmanager
def _pooled_by(model: keras.Model) -> Iterator[list[tf.Tensor]]:
    """Collect what the global poolings are given while `model` is called; a later convolution empties the list.

    A pooling inside a nested model has no tensor in the outer one's graph, so the calls themselves are watched.
    """
    pooled: list[tf.Tensor] = []
    watched = [layer for layer in _leaves(model) if isinstance(layer, (_POOLING, *_CONVOLUTIONS))]
    for layer in watched:
        _watch(layer, pooled)
    try:
        yield pooled
    finally:
        for layer in watched:
            del layer.call


def _watch(layer: keras.layers.Layer, pooled: list[tf.Tensor]) -> None:
    original = layer.call

    def call(inputs: tf.Tensor) -> Any:
        if isinstance(layer, _POOLING) and layer.data_format == "channels_last":
            pooled.append(inputs)
        else:
            pooled.clear()
        return original(inputs)

    layer.call = call


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _last_features(pooled: list[tf.Tensor]) -> tf.Tensor:
    if not pooled:
        raise ExportRefused(
            "No GlobalAveragePooling2D of channels-last data follows the model's last convolution. "
            "Its input is served as the features: build the head with one."
        )
    return pooled[-1]


def _drop_unused_inputs(graph: Any) -> None:
    """Keras' Normalization constants stay behind as inputs that no node reads, and ONNX Runtime would demand them."""
    read = {name for node in graph.node for name in node.input}
    for unused in [value for value in graph.input if value.name not in read]:
        graph.input.remove(unused)


def _name_batch(graph: Any) -> None:
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
