"""Optimisations of a converted graph: the same results with faster operators."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model.offline.export.graph import optimise

pytestmark = pytest.mark.keras

SIDE = 32
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
RANDOM = np.random.default_rng(7)
Nodes = list[onnx.NodeProto]
Constants = dict[str, NDArray[Any]]


def make_model(nodes: Nodes, constants: Constants, output: tuple[str, int]) -> onnx.ModelProto:
    """Make a graph from `image`, float32 [n, 32, 32, 3], to an output with the given name and number of axes."""
    name, axes = output
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *[None] * (axes - 1)])],
        [onnx.numpy_helper.from_array(values, constant) for constant, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, images: NDArray[Any]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


def check(model: onnx.ModelProto) -> Counter[str]:
    """Compare the graph with its optimised copy on three images, and return the operators of the copy."""
    images = RANDOM.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    expected = run(model, images.astype(np.float32))
    optimised = onnx.ModelProto.FromString(model.SerializeToString())
    optimise(optimised)
    onnx.checker.check_model(optimised)
    assert optimised.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    np.testing.assert_allclose(run(optimised, images), expected, atol=1e-5 * max(1, np.abs(expected).max()))
    return Counter(node.op_type for node in optimised.graph.node)


def make_stem(*scaling: tuple[str, str, str], pads: tuple[int, int, int, int]) -> onnx.ModelProto:
    """Scale the image, then convolve it. Each operation is an operator and its inputs; "x" is the previous value."""
    constants: Constants = {
        "factor": np.array(1 / 255, np.float32),
        "zero": np.zeros((1, 1, 1, 3), np.float32),
        "mean": MEAN.reshape(1, 1, 1, 3),
        "deviations": np.array([0.229, 0.224, 0.225], np.float32),
        "map": RANDOM.normal(size=(1, SIDE, SIDE, 1)).astype(np.float32),
        "weights": RANDOM.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "bias": RANDOM.normal(size=8).astype(np.float32),
    }
    nodes, value = [], "image"
    for number, (kind, *inputs) in enumerate(scaling):
        names = [value if name == "x" else name for name in inputs]
        value = f"scaled_{number}"
        nodes.append(helper.make_node(kind, names, [value]))
    nodes.append(helper.make_node("Transpose", [value], ["planes"], perm=[0, 3, 1, 2]))
    convolution = helper.make_node("Conv", ["planes", "weights", "bias"], ["y"], pads=pads, strides=[2, 2])
    return make_model([*nodes, convolution], constants, ("y", 4))


FACTOR, SHIFT, DIVISION = ("Mul", "x", "factor"), ("Sub", "x", "mean"), ("Div", "x", "deviations")
NO_PADS, PADS = (0, 0, 0, 0), (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("scaling", "pads", "additions"),
    [
        ([FACTOR, SHIFT, DIVISION], PADS, 1),
        ([FACTOR, SHIFT, DIVISION], NO_PADS, 0),
        ([FACTOR, ("Add", "zero", "x")], PADS, 0),
        ([("Sub", "mean", "x"), FACTOR], PADS, 1),
        ([], PADS, 0),
    ],
    ids=["normalisation", "without padding", "identity", "negated", "no scaling"],
)
def test_scaling_is_folded_into_the_first_convolution(
    scaling: list[tuple[str, str, str]], pads: tuple[int, int, int, int], additions: int
) -> None:
    """The results stay the same, also at the borders; one addition remains if zeros are padded after a shift."""
    operators = check(make_stem(*scaling, pads=pads))
    expected = Counter({"Transpose": 1, "Cast": 1, "Add": additions, "Conv": 1})
    assert operators == expected


@pytest.mark.parametrize(
    "scaling",
    [[("Add", "x", "map")], [("Mul", "x", "x")], [("Div", "deviations", "x")], [("Mul", "x", "zero")], [("Exp", "x")]],
    ids=["addition of a map", "square", "reciprocal", "zero", "exponential"],
)
def test_other_preprocessing_stays_in_the_graph(scaling: list[Any]) -> None:
    """Preprocessing that is not an invertible scaling of each channel stays in the graph."""
    one = ("Add", "x", "mean")  # no division by zero
    operators = check(make_stem(one, *scaling, pads=PADS))
    assert operators["Cast"] == 1
    assert operators[scaling[0][0]] >= 1


def make_mean(axes: list[int], keepdims: int, channels_last: bool) -> onnx.ModelProto:
    nodes = [helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2])]
    if channels_last:
        nodes.append(helper.make_node("Transpose", ["planes"], ["last"], perm=[0, 2, 3, 1]))
    source = "last" if channels_last else "planes"
    nodes.append(helper.make_node("ReduceMean", [source, "axes"], ["y"], keepdims=keepdims))
    return make_model(nodes, {"axes": np.array(axes)}, ("y", 4 if keepdims else 2))


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("axes", "channels_last"), [([1, 2], True), ([-3, -2], True), ([2, 3], False)])
def test_means_over_height_and_width_are_poolings(axes: list[int], channels_last: bool, keepdims: int) -> None:
    """A mean over all positions of 32x32 maps becomes two poolings of the channels-first values."""
    operators = check(make_mean(axes, keepdims, channels_last))
    assert operators["ReduceMean"] == 0
    assert operators["AveragePool"] == operators["GlobalAveragePool"] == 1


def test_other_means_are_kept() -> None:
    """A mean over the rows alone stays in the graph."""
    assert check(make_mean([2], 1, channels_last=False))["ReduceMean"] == 1


def make_block(activation: str) -> onnx.ModelProto:
    """Make a squeeze-and-excitation block of 8 maps with a bottleneck of 3 channels, as tf2onnx converts it."""
    constants: Constants = {
        "weights": RANDOM.normal(size=(8, 3, 4, 4)).astype(np.float32) / 100,
        "axes": np.array([1, 2]),
        "shape": np.array([-1, 8, 1, 1]),
        "small_shape": np.array([-1, 3, 1, 1]),
        "reduce": RANDOM.normal(size=(3, 8, 1, 1)).astype(np.float32),
        "reduce_bias": RANDOM.normal(size=3).astype(np.float32),
        "expand": RANDOM.normal(size=(8, 3, 1, 1)).astype(np.float32),
        "expand_bias": RANDOM.normal(size=8).astype(np.float32),
    }
    activations = {
        "ReLU": [helper.make_node("Relu", ["reduced"], ["active"])],
        "SiLU": [
            helper.make_node("Sigmoid", ["reduced"], ["gate"]),
            helper.make_node("Mul", ["reduced", "gate"], ["active"]),
        ],
        "Softplus": [helper.make_node("Softplus", ["reduced"], ["active"])],
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["maps"], strides=[4, 4]),
        helper.make_node("Transpose", ["maps"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("ReduceMean", ["last", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["squeezed"]),
        helper.make_node("Conv", ["squeezed", "reduce", "reduce_bias"], ["reduced"]),
        *activations[activation],
        helper.make_node("Reshape", ["active", "small_shape"], ["active_4d"]),
        helper.make_node("Conv", ["active_4d", "expand", "expand_bias"], ["expanded"]),
        helper.make_node("Sigmoid", ["expanded"], ["scale"]),
        helper.make_node("Mul", ["maps", "scale"], ["y"]),
    ]
    return make_model(nodes, constants, ("y", 4))


@pytest.mark.parametrize(("activation", "repeated"), [("ReLU", 1), ("SiLU", 1), ("Softplus", 0)])
def test_scales_of_an_excitation_are_repeated_over_the_maps(activation: str, repeated: int) -> None:
    """A block is computed without reshapes; its scales are repeated only if its activation maps 0 to 0."""
    operators = check(make_block(activation))
    assert operators["Resize"] == repeated
    assert operators["Reshape"] == operators["ReduceMean"] == 0


def test_bottleneck_is_filled_to_whole_blocks() -> None:
    """A bottleneck of 3 channels is padded to 16."""
    model = make_block("SiLU")
    optimise(model)
    shapes = {tuple(constant.dims) for constant in model.graph.initializer}
    assert {(16, 8, 1, 1), (8, 16, 1, 1), (16,)} <= shapes
    assert not {(3, 8, 1, 1), (8, 3, 1, 1)} & shapes
