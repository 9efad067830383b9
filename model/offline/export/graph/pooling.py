"""Replace means over height and width with average poolings, which need no transposed copy of the values.

ONNX Runtime sums the values of a pooling sequentially in float32. Over 128 x 128 positions, the rounding errors change
probabilities by 1e-4, so large maps are pooled in two steps of fewer values each.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from model.offline.export.graph.edit import Graph, Shape, get_attribute

_TO_CHANNELS_LAST = [0, 2, 3, 1]
# The maximum number of positions whose sum is precise enough in one step.
_MAX_POSITIONS = 256


def pool_globally(graph: Graph) -> None:
    """Replace each ReduceMean over height and width, and drop the reshapes that follow for 1x1 convolutions."""
    shapes = graph.infer_shapes()
    for node in graph.list_nodes("ReduceMean"):
        maps = _find_maps(graph, node, shapes)
        if maps is not None:
            _replace(graph, node, maps, shapes.get(maps, ()))
    _drop_reshapes(graph)


def _find_maps(graph: Graph, node: onnx.NodeProto, shapes: dict[str, Shape]) -> str | None:
    """Return the value [n, channels, height, width] whose mean over height and width the node computes, or None."""
    axes = graph.read_constant(node.input[1]) if len(node.input) > 1 else None
    if axes is None:
        return None
    source = str(node.input[0])
    rank = len(shapes.get(source, ()))
    reduced = sorted(int(axis) % 4 for axis in axes)
    if rank == 4 and reduced == [2, 3]:
        return source
    transpose = graph.find_producer(source, "Transpose")
    if reduced != [1, 2] or transpose is None or get_attribute(transpose, "perm", []) != _TO_CHANNELS_LAST:
        return None
    return str(transpose.input[0])


def _replace(graph: Graph, node: onnx.NodeProto, maps: str, shape: Shape) -> None:
    """Compute the output of the node from a pooling of `maps`, [n, channels, 1, 1]."""
    channels_last = node.input[0] != maps
    sides = [side for side in shape[2:] if isinstance(side, int)]
    if math.prod(sides) > _MAX_POSITIONS:
        window = [_find_divisor(side) for side in sides]
        maps = graph.add_node("AveragePool", [maps], before=node, kernel_shape=window, strides=window)
    pooled = graph.add_node("GlobalAveragePool", [maps], before=node)
    keeps_axes = get_attribute(node, "keepdims", 1) == 1
    del node.attribute[:]
    node.input[:] = [pooled]
    if not keeps_axes:
        node.op_type = "Flatten"
    elif channels_last:
        node.op_type = "Transpose"
        node.attribute.append(onnx.helper.make_attribute("perm", _TO_CHANNELS_LAST))
    else:
        node.op_type = "Identity"


def _find_divisor(side: int) -> int:
    """Return the largest divisor up to the square root: windows of this side cover the map exactly."""
    return next(divisor for divisor in range(math.isqrt(side), 0, -1) if side % divisor == 0)


def _drop_reshapes(graph: Graph) -> None:
    """Drop reshapes to [n, channels, 1, 1] of values that have this shape, or had it before they were flattened."""
    for node in graph.list_nodes("Reshape"):
        flatten = graph.find_producer(node.input[0], "Flatten")
        source = node.input[0] if flatten is None else flatten.input[0]
        target = graph.read_constant(node.input[1])
        shape = graph.infer_shapes().get(source, ())
        if target is None or len(shape) != 4 or graph.is_output(node.output[0]):
            continue
        if shape[2:] == (1, 1) and np.array_equal(target[1:], shape[1:]):
            graph.replace_uses(node.output[0], source)
