"""The two forms in which a client can send an image: an encoded file, or decoded pixels."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from model.errors import WrongTensorShape
from model.imaging.containers.reduced import ReducedFile
from model.imaging.decode import DecodedImage, ImageNeeds, decode_image, measure_image
from model.imaging.input_spec import InputSpec

TENSOR_FORMAT = "TENSOR"
_BITS = 8


class PixelTensor(Struct, frozen=True):
    """Decoded pixels, RGB in 0..255: `data` holds uint8 [height, width, 3] in C order."""

    data: bytes
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.data)


ImageSource = bytes | PixelTensor


def get_bytes(source: ImageSource) -> bytes:
    """Return the bytes that the ledger hashes: the file, or the pixels."""
    return source.data if isinstance(source, PixelTensor) else source


def decode_source(source: ImageSource, spec: InputSpec, reduced: ReducedFile | None = None) -> DecodedImage:
    """Return the model's input, a tensor unchanged. Raises WrongTensorShape, and the errors of `decode_image`."""
    if not isinstance(source, PixelTensor):
        return decode_image(source, spec, reduced=reduced)
    _check_shape(source, spec)
    pixels = np.frombuffer(source.data, np.uint8).reshape(spec.shape)
    return DecodedImage(pixels, TENSOR_FORMAT, source.width, source.height, _BITS, "none")


def measure_tensor(tensor: PixelTensor, spec: InputSpec) -> ImageNeeds:
    """Return the size and the memory that decoded pixels need. Raises WrongTensorShape."""
    _check_shape(tensor, spec)
    return ImageNeeds(tensor.width, tensor.height, len(tensor) + spec.tensor_bytes)


def measure_source(source: ImageSource, spec: InputSpec) -> ImageNeeds:
    """Return the size and the memory needs of an image. Raises WrongTensorShape, and the errors of `measure_image`."""
    return measure_tensor(source, spec) if isinstance(source, PixelTensor) else measure_image(source, spec)


def _check_shape(tensor: PixelTensor, spec: InputSpec) -> None:
    height, width, _ = spec.shape
    if (tensor.height, tensor.width) != (height, width):
        raise WrongTensorShape(
            f"The tensor has {tensor.height}x{tensor.width} pixels; the model takes {height}x{width}. "
            "Resize the image, or send it encoded."
        )
