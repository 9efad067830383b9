"""The operations that graph rewrites need on an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

# A dimension is a number of values, a name, or "" if nothing is known.
Shape = tuple[int | str, ...]


class Graph:
    """An ONNX graph whose constants are initializers. Its nodes stay in topological order.

    The recorded shapes of intermediate values are dropped. ONNX Runtime infers them; with the converter's different
    names for the batch axis, it could not recognise that two values have the same shape.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph
        self._added = 0
        del self._graph.value_info[:]

    @property
    def input(self) -> onnx.ValueInfoProto:
        return self._graph.input[0]

    def list_nodes(self, kind: str) -> list[onnx.NodeProto]:
        """Return the nodes of an operator, in the order of the graph."""
        return [node for node in self._graph.node if node.op_type == kind]

    def find_producer(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """Return the node that has the output `name`, if its operator is one of `kinds`."""
        nodes = (node for node in self._graph.node if name in node.output)
        return next((node for node in nodes if node.op_type in kinds), None)

    def list_consumers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self._graph.node if name in node.input]

    def find_only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that reads the value; None if there are several, or if it is an output of the graph."""
        consumers = self.list_consumers(name)
        return consumers[0] if len(consumers) == 1 and not self.is_output(name) else None

    def is_output(self, name: str) -> bool:
        return any(output.name == name for output in self._graph.output)

    def read_constant(self, name: str) -> NDArray[Any] | None:
        found = next((value for value in self._graph.initializer if value.name == name), None)
        return None if found is None else np.asarray(onnx.numpy_helper.to_array(found))

    def add_constant(self, values: NDArray[Any]) -> str:
        """Add the array and return its name."""
        name = self._make_name("constant")
        self._graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add_node(self, kind: str, inputs: Sequence[str], before: onnx.NodeProto, **attributes: Any) -> str:
        """Insert a node before another one and return the name of its output."""
        output = self._make_name(kind.lower())
        node = onnx.helper.make_node(kind, inputs, [output], name=output, **attributes)
        self._graph.node.insert(list(self._graph.node).index(before), node)
        return output

    def replace_uses(self, name: str, replacement: str) -> None:
        """Have the nodes that read the value `name` read `replacement` instead."""
        for node in self.list_consumers(name):
            for index, value in enumerate(node.input):
                if value == name:
                    node.input[index] = replacement

    def infer_shapes(self) -> dict[str, Shape]:
        """Return the shape of each value by its name."""
        inferred = onnx.shape_inference.infer_shapes(self._model).graph
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        return {value.name: _read_shape(value) for value in values}

    def declare_shape(self, name: str, shape: Shape) -> None:
        """Declare the shape of a float32 value that shape inference cannot determine."""
        self._graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))

    def drop_unused(self) -> None:
        """Remove the nodes and constants that no output depends on."""
        needed = {output.name for output in self._graph.output}
        for node in reversed(list(self._graph.node)):
            if needed.isdisjoint(node.output):
                self._graph.node.remove(node)
            else:
                needed.update(node.input)
        for constant in [value for value in self._graph.initializer if value.name not in needed]:
            self._graph.initializer.remove(constant)

    def _make_name(self, kind: str) -> str:
        self._added += 1
        return f"atalaya/{kind}_{self._added}"


def get_attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of the node, or `default`. An attribute of several numbers is returned as a list."""
    found = next((each for each in node.attribute if each.name == name), None)
    if found is None:
        return default
    value = onnx.helper.get_attribute_value(found)
    return value if isinstance(value, int | float | bytes) else list(value)


def _read_shape(value: onnx.ValueInfoProto) -> Shape:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(each.dim_value if each.HasField("dim_value") else each.dim_param for each in dimensions)
