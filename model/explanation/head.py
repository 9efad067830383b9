"""The head of a classifier, from pooled features to classes, and the file `head.npz` that stores it."""

from __future__ import annotations

import io
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.errors import ArtefactError
from model.registry.artefact import Manifest, read_verified

HEAD_FILE = "head.npz"
MAX_OFFSET = 1.0
_MAX_BYTES = 1 << 27  # a hundred times the shipped head

Array = NDArray[np.float32]


class DenseLayer(Struct, frozen=True, eq=False):
    """`kernel` is float32 [inputs, outputs], `bias` float32 [outputs]; `relu` says whether a ReLU follows."""

    kernel: Array
    bias: Array
    relu: bool

    def apply(self, inputs: Array) -> Array:
        """Map float32 [..., inputs] to [..., outputs]."""
        outputs: Array = inputs @ self.kernel + self.bias
        return np.maximum(outputs, 0) if self.relu else outputs


class Head(Struct, frozen=True, eq=False):
    """The dense layers between global average pooling and softmax.

    Each position of the feature maps responds to an area of the image. `offset` is how far the centre of this area
    lies below and to the right of the position's own centre, in positions. Strided convolutions cause this shift.
    """

    layers: tuple[DenseLayer, ...]
    offset: tuple[float, float] = (0.0, 0.0)

    def compute_logits(self, pooled: Array) -> Array:
        """Map pooled features, float32 [..., channels], to the scores before the softmax, float32 [..., classes]."""
        for layer in self.layers:
            pooled = layer.apply(pooled)
        return pooled

    def differentiate(self, pooled: Array, index: int) -> Array:
        """Return the gradient of the logit of class `index` at `pooled`, both float32 [channels]."""
        outputs = [pooled]
        for layer in self.layers:
            outputs.append(layer.apply(outputs[-1]))
        gradient = np.zeros_like(outputs[-1])
        gradient[index] = 1
        for layer, output in zip(reversed(self.layers), reversed(outputs), strict=False):
            if layer.relu:
                gradient = np.where(output > 0, gradient, np.float32(0))
            gradient = layer.kernel @ gradient
        return gradient


def write_head(path: Path, head: Head) -> None:
    """Write the arrays `kernel_0`, `bias_0`, `kernel_1`, …, `relu`, bool [layers], and `offset`, float32 [2].

    Equal heads are written as identical bytes.
    """
    arrays: dict[str, NDArray[np.float32] | NDArray[np.bool_]] = {
        "relu": np.array([layer.relu for layer in head.layers]),
        "offset": np.array(head.offset, np.float32),
    }
    for number, layer in enumerate(head.layers):
        arrays |= {f"kernel_{number}": layer.kernel, f"bias_{number}": layer.bias}
    np.savez(path, allow_pickle=False, **arrays)


def read_head(folder: Path, manifest: Manifest, channels: object = None) -> Head | None:
    """Read `head.npz` of an artefact; None if the manifest does not list it.

    `channels` is the number of the graph's feature maps; None accepts any number. Raises ArtefactError, DigestMismatch.
    """
    if HEAD_FILE not in manifest.files:
        return None
    data = read_verified(folder, manifest, HEAD_FILE)
    try:
        head = _parse(data)
    except Exception as error:  # zipfile and NumPy raise nearly any class
        raise ArtefactError(f"{folder / HEAD_FILE} cannot be read: {error}. Export the model again.") from error
    sizes = head.layers[0].kernel.shape[0], head.layers[-1].kernel.shape[1]
    if sizes != (channels or sizes[0], len(manifest.classes)):
        raise ArtefactError(
            f"{folder / HEAD_FILE} maps {sizes[0]} feature maps to {sizes[1]} classes, but the graph has {channels} "
            f"feature maps and {len(manifest.classes)} classes. Export the model again."
        )
    return head


def _parse(data: bytes) -> Head:
    with ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    # The declared size of a compressed member says nothing about what it expands to. Members may share their bytes.
    is_compressed = any(member.compress_type != ZIP_STORED for member in members)
    if is_compressed or sum(member.file_size for member in members) > _MAX_BYTES:
        raise ValueError(f"its arrays are compressed, or take more than {_MAX_BYTES} bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    flags, (down, right) = arrays.pop("relu"), arrays.pop("offset").tolist()
    layers = tuple(
        DenseLayer(arrays.pop(f"kernel_{number}"), arrays.pop(f"bias_{number}"), bool(relu))
        for number, relu in enumerate(flags)
    )
    if arrays or not layers or flags.dtype != np.bool_ or not (abs(down) <= MAX_OFFSET and abs(right) <= MAX_OFFSET):
        raise ValueError("its arrays are not those of a head")
    width = layers[0].kernel.shape[0]
    for layer in layers:
        _check_layer(layer, width)
        width = len(layer.bias)
    return Head(layers, (down, right))


def _check_layer(layer: DenseLayer, inputs: int) -> None:
    if layer.kernel.shape != (inputs, *layer.bias.shape) or layer.bias.ndim != 1:
        raise ValueError(f"a layer of shape {layer.kernel.shape} with {layer.bias.shape} follows {inputs} values")
    if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in (layer.kernel, layer.bias)):
        raise ValueError("its weights are not finite float32 numbers")
