"""An ONNX classifier of a few hundred bytes: the probabilities are the softmax of the image's mean red, green and blue.

It is encoded by hand, with the field numbers of `onnx.proto`, because the serving environment has no onnx package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.explanation.head import HEAD_FILE, DenseLayer, Head, write_head
from model.imaging.input_spec import InputSpec
from model.registry.artefact import write_manifest

CLASSES = ("red", "green", "blue")
_FLOAT, _INT, _INTS, _BOOL = 1, 2, 7, 9
_TENSOR_TYPES = {"float32": _FLOAT, "uint8": 2}


def write_tiny_artefact(
    folder: Path, spec: InputSpec, *, with_head: bool = False, version: str = "1.0", inverted: bool = False
) -> Path:
    """Write an artefact whose graph takes the input that `spec` describes, including its type, and return `folder`.

    With a head, the model can explain its predictions: the map of a class is the intensity of its colour in each pixel.
    An `inverted` graph prefers the weakest colour.
    """
    if with_head:
        identity, zeros = np.eye(len(CLASSES), dtype=np.float32), np.zeros(len(CLASSES), np.float32)
        write_head(folder / HEAD_FILE, Head((DenseLayer(identity, zeros, relu=False),)))
    (folder / "model.onnx").write_bytes(encode_graph(spec, inverted=inverted))
    write_manifest(
        folder,
        name="tiny",
        version=version,
        classes=CLASSES,
        outputs={"probabilities": "float32 [n, 3]", "features": "float32 [n, height, width, 3]"},
        filenames=("model.onnx", HEAD_FILE) if with_head else ("model.onnx",),
        data={},
        results={},
        tools={},
        input_spec=spec,
    )
    return folder


def encode_graph(spec: InputSpec, *, inverted: bool = False, leaves_channels_open: bool = False) -> bytes:
    """Return the graph. With `leaves_channels_open`, only a prediction shows how many feature maps it has."""
    graph = [
        _message(1, _node("Cast", "image", "values", _integer("to", _FLOAT))),
        _message(1, _node("ReduceMean", "values", "means", _integers("axes", 1, 2), _integer("keepdims", 0))),
        _message(1, _node("Neg" if inverted else "Identity", "means", "logits")),
        _message(1, _node("Softmax", "logits", "probabilities", _integer("axis", 1))),
        *(_select_channels() if leaves_channels_open else [_message(1, _node("Identity", "values", "features"))]),
        _text(2, "tiny"),
        _message(11, _tensor("image", *spec.shape, kind=_TENSOR_TYPES[spec.dtype])),
        _message(12, _tensor("probabilities", len(CLASSES))),
        _message(12, _tensor("features", spec.height, spec.width, "c" if leaves_channels_open else 3)),
    ]
    opset = _number(2, 13)
    return _number(1, 8) + _message(7, b"".join(graph)) + _message(8, opset)


def _select_channels() -> list[bytes]:
    """Nodes that keep the channels whose mean has an exponential other than 0, which is true of every channel."""
    return [
        _message(1, _node("ReduceMean", "values", "brightness", _integers("axes", 0, 1, 2), _integer("keepdims", 0))),
        _message(1, _node("Exp", "brightness", "positive")),
        _message(1, _node("Cast", "positive", "kept", _integer("to", _BOOL))),
        _message(1, _text(1, "values") + _node("Compress", "kept", "features", _integer("axis", 3))),
    ]


def _node(operator: str, source: str, target: str, *attributes: bytes) -> bytes:
    return _text(1, source) + _text(2, target) + _text(4, operator) + b"".join(_message(5, one) for one in attributes)


def _integer(name: str, value: int) -> bytes:
    return _text(1, name) + _number(3, value) + _number(20, _INT)


def _integers(name: str, *values: int) -> bytes:
    return _text(1, name) + b"".join(_number(8, value) for value in values) + _number(20, _INTS)


def _tensor(name: str, *shape: int | str, kind: int = _FLOAT) -> bytes:
    """A named tensor of [n, *shape], float32 unless `kind` says otherwise."""
    dimensions = [_text(2, side) if isinstance(side, str) else _number(1, side) for side in ("n", *shape)]
    tensor = _number(1, kind) + _message(2, b"".join(_message(1, one) for one in dimensions))
    return _text(1, name) + _message(2, _message(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])
