"""Keep squeeze-and-excitation blocks (Hu et al., 2018) in the layout of the convolutions around them.

Such a block multiplies each feature map by one number. ONNX Runtime 1.32 multiplies values of different shapes only in
the plain layout. In the blocked layout, it can repeat a number over a map, and multiply two values of the same shape.
"""

from __future__ import annotations

import numpy as np
import onnx
from msgspec import Struct

from model.offline.export.graph.edit import Graph, Shape

# The blocked layout has blocks of 8 or 16 channels, depending on the processor. It is not used for a convolution whose
# input does not consist of whole blocks.
_BLOCK = 16


class _Excitation(Struct, frozen=True):
    """`multiply` multiplies `maps`, of `shape`, by `scale`, the sigmoid of a bottleneck of two convolutions."""

    multiply: onnx.NodeProto
    maps: str
    shape: Shape
    scale: str
    reduce: onnx.NodeProto
    expand: onnx.NodeProto


def expand_scales(graph: Graph) -> None:
    """Repeat the scales of each block over the maps, and pad the channels of its bottleneck with zeros."""
    shapes = graph.infer_shapes()
    for node in graph.list_nodes("Mul"):
        for scale, maps in (tuple(node.input), tuple(reversed(node.input))):
            block = _match(graph, node, scale, maps, shapes)
            if block is not None:
                _repeat_scale(graph, block)
                _pad_bottleneck(graph, block)
                break


def _match(
    graph: Graph, multiply: onnx.NodeProto, scale: str, maps: str, shapes: dict[str, Shape]
) -> _Excitation | None:
    shape = shapes.get(maps, ())
    sigmoid = graph.find_producer(scale, "Sigmoid")
    if sigmoid is None or len(shape) != 4 or not all(isinstance(side, int) and side > 1 for side in shape[2:]):
        return None
    expand = graph.find_producer(sigmoid.input[0], "Conv")
    if expand is None or shapes.get(scale, ())[1:] != (shape[1], 1, 1):
        return None
    reduce = _find_reduce(graph, expand)
    return None if reduce is None else _Excitation(multiply, maps, shape, scale, reduce, expand)


def _find_reduce(graph: Graph, expand: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the convolution before the bottleneck's activation, a ReLU or a SiLU, both of which map 0 to 0."""
    activation = graph.find_producer(expand.input[0], "Relu", "Mul")
    if activation is None:
        return None
    candidates = (graph.find_producer(name, "Conv") for name in activation.input)
    reduce = next((node for node in candidates if node is not None), None)
    if reduce is None or graph.find_producer(reduce.input[0], "GlobalAveragePool") is None:
        return None
    if activation.op_type == "Mul":
        gates = (graph.find_producer(name, "Sigmoid") for name in activation.input)
        if not any(gate is not None and gate.input[0] == reduce.output[0] for gate in gates):
            return None
    return reduce


def _repeat_scale(graph: Graph, block: _Excitation) -> None:
    factors = graph.add_constant(np.array([1, 1, *block.shape[2:]], np.float32))
    repeated = graph.add_node(
        "Resize",
        [block.scale, "", factors],
        before=block.multiply,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    graph.declare_shape(repeated, block.shape)
    block.multiply.input[:] = [block.maps, repeated]


def _pad_bottleneck(graph: Graph, block: _Excitation) -> None:
    """Pad the channels to whole blocks with zero weights, which do not change the results."""
    before, after = (graph.read_constant(node.input[1]) for node in (block.reduce, block.expand))
    bias = graph.read_constant(block.reduce.input[2]) if len(block.reduce.input) > 2 else None
    if before is None or after is None or bias is None or len(before) != after.shape[1]:
        return
    missing = -len(before) % _BLOCK
    if missing:
        block.reduce.input[1] = graph.add_constant(np.pad(before, ((0, missing), (0, 0), (0, 0), (0, 0))))
        block.reduce.input[2] = graph.add_constant(np.pad(bias, (0, missing)))
        block.expand.input[1] = graph.add_constant(np.pad(after, ((0, 0), (0, missing), (0, 0), (0, 0))))
