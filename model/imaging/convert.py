"""Convert an opened image to the model's input: upright 8-bit RGB of the model's size."""

from __future__ import annotations

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from model.errors import UnsupportedPixelFormat
from model.imaging.input_spec import InputSpec
from model.imaging.orientation import swaps_sides
from model.imaging.png_keys import apply_png_key

_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
_INDEXED = {"1", "P", "PA"}
_WITH_ALPHA = {"RGBA", "LA"}
_OPAQUE = {"RGB", "RGBX", "L", "CMYK", "YCbCr"}


def convert_to_input(image: Image.Image, data: bytes, operation: Transpose | None, spec: InputSpec) -> Image.Image:
    """Resize, convert to RGB and turn with `operation` the `image` of the file `data`.

    The image is resized first, so that only the model's few pixels are turned. Raises UnsupportedPixelFormat.
    """
    width, height = spec.size
    size = (height, width) if swaps_sides(operation) else (width, height)
    resized = _resize_to_rgb(_convert_samples(image, data), size, spec.resampling)
    return resized if operation is None else resized.transpose(operation)


def _convert_samples(image: Image.Image, data: bytes) -> Image.Image:
    """Convert indexed, keyed and 16-bit samples, whose values cannot be averaged, to 8-bit ones."""
    if image.format == "PNG" and image.mode in {"L", "I;16", "RGB"} and image.has_transparency_data:
        return apply_png_key(image, data)
    if image.mode in _SIXTEEN_BIT:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in _INDEXED:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in _OPAQUE | _WITH_ALPHA:
        raise UnsupportedPixelFormat(
            f"Pixels of mode {image.mode} have no agreed 8-bit meaning. Convert the image to 8-bit RGB."
        )
    return image


def _resize_to_rgb(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    if not image.has_transparency_data:
        return image.resize(size, resampling).convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    resized = rgba.resize(size, resampling)
    white = Image.new("RGBA", size, (255, 255, 255, 255))
    return Image.alpha_composite(white, resized).convert("RGB")
