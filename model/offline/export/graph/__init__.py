"""Rewrite a converted graph so that ONNX Runtime runs it faster, with the same results.

ONNX Runtime keeps the data of convolutions in a blocked layout (NCHWc). Each operator that does not support that layout
costs a reordering of all values before and after it, so these rewrites replace such operators.
"""

from __future__ import annotations

import onnx

from model.offline.export.graph.edit import Graph
from model.offline.export.graph.excitation import expand_scales
from model.offline.export.graph.image_input import read_bytes
from model.offline.export.graph.pooling import pool_globally


def optimise(model: onnx.ModelProto) -> None:
    """Rewrite the graph of `model`, whose only input is an image, float32 [n, height, width, 3].

    Afterwards the input is uint8. The outputs keep their names, types and shapes.
    """
    graph = Graph(model)
    read_bytes(graph)
    pool_globally(graph)
    expand_scales(graph)
    graph.drop_unused()
