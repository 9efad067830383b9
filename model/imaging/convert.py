"""Convert an opened image to the model's input: upright 8-bit RGB of the model's size."""

from __future__ import annotations

from PIL import Image
from PIL.Image import Transpose

from model.errors import UnsupportedPixelFormat
from model.imaging.input_spec import InputSpec
from model.imaging.orientation import swaps_sides
from model.imaging.png_keys import apply_png_key
from model.imaging.sample_range import NO_HINTS, RangeHints
from model.imaging.samples import get_bit_depth, name_scaling
from model.imaging.sixteen_bits import convert_sixteen_bits

_SIXTEEN_BITS = 16
_KEYED = {"L", "RGB"}
_INDEXED = {"1", "P", "PA"}
_WITH_ALPHA = {"RGBA", "LA"}
_OPAQUE = {"RGB", "RGBX", "L", "CMYK", "YCbCr"}


def convert_to_input(
    image: Image.Image, data: bytes, operation: Transpose | None, spec: InputSpec, hints: RangeHints = NO_HINTS
) -> tuple[Image.Image, str]:
    """Return the image, from the file `data`, resized, in RGB and turned with `operation`; and the scaling's name.

    The image is resized first, so that only the model's few pixels are turned. Raises UnsupportedPixelFormat.
    """
    width, height = spec.size
    size = (height, width) if swaps_sides(operation) else (width, height)
    bit_depth = get_bit_depth(image, data)
    if bit_depth == _SIXTEEN_BITS:
        samples, used = convert_sixteen_bits(image, data, hints)
        scaling = used.scaling
    else:
        samples, scaling = _convert_samples(image, bit_depth), name_scaling(image, bit_depth)
    resized = _resize_to_rgb(samples, size, spec.resampling)
    return resized if operation is None else resized.transpose(operation), scaling


def _convert_samples(image: Image.Image, bit_depth: int) -> Image.Image:
    """Convert indexed and keyed samples, whose values cannot be averaged. Raises UnsupportedPixelFormat."""
    if image.format == "PNG" and image.mode in _KEYED and image.has_transparency_data:
        return apply_png_key(image, bit_depth)
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
