"""Convert a Keras classifier to an ONNX graph that returns probabilities and the last convolutional features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tf2onnx

from model.errors import ExportRefused
from model.imaging.input_spec import InputSpec
from model.offline.export.graph import optimise

OPSET = 18  # the newest that tf2onnx 1.17 supports
_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
# A layer, and the tensor or tensors with which it was called.
Call = tuple[keras.layers.Layer, Any]


def load_classifier(path: Path) -> keras.Model:
    """Load a .keras file that maps [n, height, width, 3] to [n, classes]. Raises ExportRefused.

    Keras' safe mode keeps code in the file from running, but it has had bugs: load only files from a trusted source.
    """
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # the loader raises almost any exception class
        raise ExportRefused(f"Keras {keras.__version__} cannot load the model: {_get_first_line(error)}") from error
    _check_signature(model)
    # Some files wrap the single input and output in lists or dictionaries. A model of the same layers does not.
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def to_onnx(model: keras.Model) -> bytes:
    """Convert to a serialised graph with the input `image`, uint8 [n, height, width, 3].

    Its outputs are `probabilities`, float32 [n, classes], `features`, float32 [n, height, width, channels], and
    `pooled`, float32 [n, channels], the mean of each feature map.
    Raises ExportRefused.
    """
    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name="image")]

    def predict(image: tf.Tensor) -> dict[str, tf.Tensor]:
        with record_calls(model) as calls:
            probabilities = model(image, training=False)
        _, features = calls[find_head(calls)]
        pooled = tf.reduce_mean(features, axis=(1, 2))
        return {"probabilities": probabilities, "features": features, "pooled": pooled}

    traced = tf.function(predict, input_signature=signature, autograph=False)
    try:
        graph, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=OPSET)
    except ExportRefused:
        raise
    except Exception as error:  # tracing and tf2onnx raise almost any exception class
        raise ExportRefused(f"tf2onnx cannot convert the model: {_get_first_line(error)}") from error
    _drop_unused_inputs(graph.graph)
    _name_batch_axis(graph.graph)
    optimise(graph)
    return bytes(graph.SerializeToString())


def check_input(model: keras.Model, spec: InputSpec) -> None:
    """Raise ExportRefused unless the model, from `load_classifier`, takes images of the size in `spec`."""
    shape = tuple(model.inputs[0].shape)
    if shape != (None, *spec.shape):
        raise ExportRefused(f"The model's input has the shape {shape}. It must be {(None, *spec.shape)}.")


def _check_signature(model: keras.Model) -> None:
    inputs = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    outputs = [tuple(tensor.shape) for tensor in getattr(model, "outputs", None) or ()]
    if len(inputs) != 1:
        raise ExportRefused(f"The model's inputs are {inputs}. It must have one, an image.")
    if len(outputs) != 1 or len(outputs[0]) != 2 or (outputs[0][1] or 0) < 2:
        raise ExportRefused(
            f"The model's outputs are {outputs}. It must have one output of shape (None, classes), a softmax."
        )


@contextmanager
def record_calls(model: keras.Model) -> Iterator[list[Call]]:
    """Collect each layer and its first argument, in the order of the calls, while `model` is called.

    The input of a layer inside a nested model is not a tensor of the outer model, so the layers' calls are wrapped.
    """
    calls: list[Call] = []
    layers = list(_iterate_layers(model))
    for layer in layers:
        _wrap_call(layer, calls)
    try:
        yield calls
    finally:
        for layer in layers:
            del layer.call


def find_head(calls: Sequence[Call]) -> int:
    """Return the index of the last global average pooling, whose input is served as the features.

    Raises ExportRefused if there is none, or if a convolution follows it.
    """
    for index in reversed(range(len(calls))):
        layer = calls[index][0]
        if isinstance(layer, keras.layers.GlobalAveragePooling2D) and layer.data_format == "channels_last":
            return index
        if isinstance(layer, _CONVOLUTIONS):
            break
    raise ExportRefused(
        "No GlobalAveragePooling2D of channels-last data follows the model's last convolution. "
        "The input of that layer is served as the features: add one to the head."
    )


def _wrap_call(layer: keras.layers.Layer, calls: list[Call]) -> None:
    original = layer.call

    def call(inputs: Any, *arguments: Any, **options: Any) -> Any:
        calls.append((layer, inputs))
        return original(inputs, *arguments, **options)

    layer.call = call


def _iterate_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of the model and of its nested models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _iterate_layers(layer)
        else:
            yield layer


def _drop_unused_inputs(graph: Any) -> None:
    """Drop inputs that no node reads. Keras' Normalization leaves such inputs, and ONNX Runtime would require them."""
    used = {name for node in graph.node for name in node.input}
    for unused in [value for value in graph.input if value.name not in used]:
        graph.input.remove(unused)


def _name_batch_axis(graph: Any) -> None:
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


def _get_first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
