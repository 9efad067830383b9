"""Extract the dense layers between the last global average pooling and the softmax, which explanations need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from msgspec.structs import replace
from numpy.typing import NDArray

from model.explanation.head import HEAD_FILE, MAX_OFFSET, DenseLayer, Head, write_head
from model.offline.export.check import TOLERANCE
from model.offline.export.convert import find_head, record_calls

_CHECKED_IMAGES = 16
_NOISE_IMAGES = 4
_LINEAR, _RELU, _SOFTMAX = keras.activations.linear, keras.activations.relu, keras.activations.softmax


def export_head(folder: Path, model: keras.Model, graph: bytes, pixels: NDArray[np.uint8]) -> list[str]:
    """Write `head.npz` and return its name in a list; an empty list if the model has another kind of head.

    The head is written only if it reproduces the graph's probabilities on `pixels`, uint8 [n, height, width, 3].
    """
    head = extract_head(model)
    if head is None or not _agrees(head, graph, pixels[:_CHECKED_IMAGES]):
        print("Predictions cannot be explained: only dense layers may follow the global average pooling.", flush=True)
        return []
    write_head(folder / HEAD_FILE, replace(head, offset=measure_offset(model)))
    return [HEAD_FILE]


def extract_head(model: keras.Model) -> Head | None:
    """Return the head of a classifier, without an offset; None unless it has only dense layers, with or without ReLU.

    Dropout is ignored. The last activation must be the model's only softmax. Raises ExportRefused.
    """
    layers: list[DenseLayer] = []
    activation: Any = _LINEAR
    for layer in _list_head_layers(model):
        is_dense = type(layer) is keras.layers.Dense
        if activation is _SOFTMAX or not (layers or is_dense or isinstance(layer, keras.layers.Dropout)):
            return None
        activation = _get_activation(layer)
        if activation not in (_LINEAR, _RELU, _SOFTMAX):
            return None
        if is_dense:
            layers.append(_copy_dense(layer))
        if activation is _RELU:
            layers[-1] = DenseLayer(layers[-1].kernel, layers[-1].bias, relu=True)
    return Head(tuple(layers)) if activation is _SOFTMAX else None


def measure_offset(model: keras.Model) -> tuple[float, float]:
    """Return the offset that `Head` describes, (down, right), in rows and columns of the feature maps.

    This is the centre of the effective receptive field (Luo et al., "Understanding the Effective Receptive Field in
    Deep Convolutional Neural Networks", 2016) of a position in the middle, over images of noise.
    """
    generator = np.random.default_rng(64)
    shape = (1, *model.inputs[0].shape[1:])
    # One at a time: the activations of an image take 200 MB.
    noise = [generator.uniform(0, 255, shape).astype(np.float32) for _ in range(_NOISE_IMAGES)]
    offsets = np.array([_measure_offset(model, tf.constant(image)) for image in noise])
    down, right = np.clip(offsets.mean(axis=0), -MAX_OFFSET, MAX_OFFSET).tolist()
    return down, right


def _measure_offset(model: keras.Model, image: tf.Tensor) -> tuple[float, float]:
    with tf.GradientTape() as tape, record_calls(model) as calls:
        tape.watch(image)
        model(image, training=False)
        _, features = calls[find_head(calls)]
        rows, columns = features.shape[1:3]
        middle = (rows - 1) // 2, (columns - 1) // 2
        response = tf.reduce_sum(features[:, middle[0], middle[1]])
    influence = np.square(tape.gradient(response, image)).sum(axis=(0, 3))
    if not influence.any():
        return 0.0, 0.0
    down = _find_centre(influence.sum(axis=1)) * rows - (middle[0] + 0.5)
    right = _find_centre(influence.sum(axis=0)) * columns - (middle[1] + 0.5)
    return down, right


def _find_centre(weights: NDArray[np.float32]) -> float:
    """Return the centre of mass of the weights, float32 [n], as a share of their length."""
    return float(np.average(np.arange(len(weights)) + 0.5, weights=weights)) / len(weights)


def _list_head_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers that are called after the last global average pooling."""
    signature = tf.TensorSpec(model.inputs[0].shape, tf.float32)
    with record_calls(model) as calls:
        tf.function(lambda image: model(image, training=False), autograph=False).get_concrete_function(signature)
    return [layer for layer, _ in calls[find_head(calls) + 1 :]]


def _get_activation(layer: keras.layers.Layer) -> Callable[..., Any] | None:
    """Return the function that the layer applies after its weights, if any; None for an unsupported layer."""
    match layer:
        case keras.layers.Dense() | keras.layers.Activation():
            activation: Callable[..., Any] = layer.activation
            return activation
        case keras.layers.Dropout():
            return _LINEAR  # type: ignore[no-any-return]
        case keras.layers.Softmax(axis=-1):
            return _SOFTMAX  # type: ignore[no-any-return]
        case keras.layers.ReLU(max_value=None, negative_slope=0, threshold=0):
            return _RELU  # type: ignore[no-any-return]
    return None


def _copy_dense(layer: keras.layers.Layer) -> DenseLayer:
    kernel = np.asarray(layer.kernel, np.float32)
    bias = np.asarray(layer.bias, np.float32) if layer.use_bias else np.zeros(kernel.shape[1], np.float32)
    return DenseLayer(kernel, bias, relu=False)


def _agrees(head: Head, graph: bytes, pixels: NDArray[np.uint8]) -> bool:
    """Whether the head computes the graph's probabilities from its pooled features."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    images = {session.get_inputs()[0].name: pixels}
    probabilities, pooled = session.run(["probabilities", "pooled"], images)
    logits = head.compute_logits(pooled)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return bool(np.abs(powers / powers.sum(axis=1, keepdims=True) - probabilities).max() <= TOLERANCE)
