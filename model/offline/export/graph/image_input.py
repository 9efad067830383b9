"""Give the graph a uint8 input, and fold the scaling of pixels into the first convolution."""

from __future__ import annotations

import numpy as np
import onnx
from msgspec import Struct, field
from numpy.typing import NDArray

from model.offline.export.graph.edit import Graph, get_attribute

_TO_CHANNELS_FIRST = [0, 3, 1, 2]
_CHANNELS = 3
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


class _Scaling(Struct):
    """The computation on each pixel before the first convolution: `factor` x pixel + `shift`, for each channel."""

    factor: NDArray[np.float64] = field(default_factory=lambda: np.ones(_CHANNELS))
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_CHANNELS))

    def apply(self, kind: str, values: NDArray[np.float64], constant_first: bool) -> bool:
        """Append an operation with a constant for each channel. Returns False if the result is not a scaling."""
        if kind == "Div":
            if constant_first:
                return False
            values = 1 / values
        if kind in ("Mul", "Div"):
            self.factor, self.shift = self.factor * values, self.shift * values
        elif kind == "Sub":
            sign = -1 if constant_first else 1
            self.factor, self.shift = sign * self.factor, sign * (self.shift - values)
        else:
            self.shift = self.shift + values
        return True

    @property
    def is_invertible(self) -> bool:
        with np.errstate(divide="ignore", invalid="ignore"):
            return bool(np.isfinite(self.factor).all() and np.isfinite(self.shift / self.factor).all())


def read_bytes(graph: Graph) -> None:
    """Change the input to uint8, and convert it to float32 where the first convolution reads it.

    With zero padding, a shift cannot be folded into the bias, because the pixels outside the image are 0 after scaling;
    one addition remains in this case. Preprocessing that is not a scaling of each channel is not changed.
    """
    image = graph.input.name
    graph.input.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    scaling = _Scaling()
    convolution = _follow(graph, image, scaling)
    if convolution is not None and _fold(graph, convolution, scaling):
        return
    consumers = graph.list_consumers(image)
    converted = graph.add_node("Cast", [image], before=consumers[0], to=onnx.TensorProto.FLOAT)
    for node in consumers:
        node.input[:] = [converted if name == image else name for name in node.input]


def _follow(graph: Graph, name: str, scaling: _Scaling) -> onnx.NodeProto | None:
    """Return the convolution that reads the scaled image, and collect the operations before it in `scaling`."""
    channels_first = False
    while (node := graph.find_only_consumer(name)) is not None:
        if node.op_type == "Conv":
            return node if channels_first and node.input[0] == name else None
        if node.op_type == "Transpose" and get_attribute(node, "perm", []) == _TO_CHANNELS_FIRST:
            channels_first = True
        elif node.op_type not in _ARITHMETIC or not _add_operation(graph, node, name, scaling, channels_first):
            return None
        name = node.output[0]
    return None


def _add_operation(graph: Graph, node: onnx.NodeProto, name: str, scaling: _Scaling, channels_first: bool) -> bool:
    constant_first = node.input[0] != name
    constant = graph.read_constant(node.input[0 if constant_first else 1])
    values = None if constant is None else _spread_over_channels(constant, channels_first)
    return values is not None and scaling.apply(node.op_type, values, constant_first)


def _spread_over_channels(constant: NDArray[np.float32], channels_first: bool) -> NDArray[np.float64] | None:
    """Return float64 [3] if the constant has one value or one for each channel, otherwise None."""
    axis = -3 if channels_first else -1
    has_channels = constant.ndim >= -axis and constant.shape[axis] == constant.size == _CHANNELS
    if constant.size != 1 and not has_channels:
        return None
    return np.broadcast_to(constant.reshape(-1).astype(np.float64), _CHANNELS)


def _fold(graph: Graph, convolution: onnx.NodeProto, scaling: _Scaling) -> bool:
    """Have the convolution read the pixels directly. Returns False, and changes nothing, if that is impossible."""
    weights = graph.read_constant(convolution.input[1])
    bias_name = convolution.input[2] if len(convolution.input) > 2 else ""
    bias = graph.read_constant(bias_name) if bias_name else np.zeros(0 if weights is None else len(weights), np.float32)
    if weights is None or bias is None or weights.shape[1] != _CHANNELS or not scaling.is_invertible:
        return False
    channels = graph.add_node("Transpose", [graph.input.name], before=convolution, perm=_TO_CHANNELS_FIRST)
    pixels = graph.add_node("Cast", [channels], before=convolution, to=onnx.TensorProto.FLOAT)
    if _has_padding(convolution):
        moved = (scaling.shift / scaling.factor).astype(np.float32).reshape(_CHANNELS, 1, 1)
        if moved.any():
            pixels = graph.add_node("Add", [pixels, graph.add_constant(moved)], before=convolution)
    else:
        bias = bias + np.einsum("oihw,i->o", weights.astype(np.float64), scaling.shift)
    scaled = weights * scaling.factor.reshape(1, _CHANNELS, 1, 1)
    constants = (graph.add_constant(each.astype(np.float32)) for each in (scaled, bias))
    convolution.input[:] = [pixels, *constants]
    return True


def _has_padding(convolution: onnx.NodeProto) -> bool:
    automatic = get_attribute(convolution, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return automatic or any(get_attribute(convolution, "pads", []))
