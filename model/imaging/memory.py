"""Estimate the peak memory of decoding an image from its header, before any pixel is decoded.

The numbers follow from the bytes that Pillow keeps per pixel and from the copies that `model.imaging.decode` makes; a
test compares the estimates with measured peaks.
"""

from __future__ import annotations

import math

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from model.imaging.containers.reduced import ReducedFile
from model.imaging.input_spec import InputSpec
from model.imaging.samples import get_raw_mode
from model.imaging.tiff_layouts import TiffLayout

# Bytes per pixel by mode, without and with transparency: the image, its conversion, and its premultiplied copy.
_BYTES_PER_PIXEL = {
    "1": (5, 9),
    "L": (1, 9),
    "P": (5, 9),
    "I;16": (4, 14),
    "RGBA": (8, 8),
}
_BYTES_PER_PIXEL_OF_OTHER_MODES = (4, 12)
# A second image for the low bytes of 16-bit colours; compressed planes are decoded one by one, with both bytes.
_LOW_BYTES_PER_PIXEL, _PLANES_BYTES_PER_PIXEL = 4, 10
# The image or its copy, and libwebp's two canvases, the frame's bytes and the decoded alpha plane.
_WEBP_BYTES_PER_PIXEL = 17
# Pillow decodes a TIFF first and then rotates a copy.
_ROTATED_BYTES_PER_PIXEL = 8
# Copies of the file in memory: the body, the reduced file, and the buffer of the decoder.
_FILE_COPIES = {"PNG": 2}
_WEBP_FILE_COPIES = 4
_OTHER_FILE_COPIES = 3
_TIFF_ORIENTATION = 274
_SIXTEEN_BIT_ORDERS = {"16B", "16L", "16N"}
# Tables and rows of pixels.
_FIXED_BYTES = 900_000
_MARGIN = 1.03


def estimate_decoding_bytes(image: Image.Image, length: int, file: ReducedFile, spec: InputSpec) -> int:
    """Estimate the bytes for a file of `length`, for its decoded image, and for scaling it to the model's input.

    `image` is the image of the reduced `file`, opened but not loaded.
    """
    copies = _FILE_COPIES.get(image.format or "", _OTHER_FILE_COPIES)
    return _estimate(image.size, _get_bytes_per_pixel(image), file, spec) + copies * length


def estimate_webp_bytes(size: tuple[int, int], length: int, file: ReducedFile, spec: InputSpec) -> int:
    """Do the same as `estimate_decoding_bytes` for a WebP of this size, without opening it."""
    return _estimate(size, _WEBP_BYTES_PER_PIXEL, file, spec) + _WEBP_FILE_COPIES * length


def estimate_jpeg_bytes(size: tuple[int, int], components: int, length: int, file: ReducedFile, spec: InputSpec) -> int:
    """Do the same for a JPEG of one or three components, decoded at this size, without opening it."""
    bytes_per_pixel, _ = _BYTES_PER_PIXEL["L"] if components == 1 else _BYTES_PER_PIXEL_OF_OTHER_MODES
    return _estimate(size, bytes_per_pixel, file, spec) + _OTHER_FILE_COPIES * length


def estimate_reading_bytes(length: int) -> int:
    """Estimate the bytes to receive a body of `length` and read its header: chunks, joined body and metadata."""
    return _OTHER_FILE_COPIES * length + _FIXED_BYTES


def _estimate(size: tuple[int, int], bytes_per_pixel: int, file: ReducedFile, spec: InputSpec) -> int:
    width, height = size
    pixels = bytes_per_pixel * width * height + _estimate_scaling_bytes(width, height, spec)
    return math.ceil((pixels + file.buffer_bytes) * _MARGIN) + _FIXED_BYTES + spec.tensor_bytes


def _get_bytes_per_pixel(image: Image.Image) -> int:
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    needed = _BYTES_PER_PIXEL.get(mode, _BYTES_PER_PIXEL_OF_OTHER_MODES)[image.has_transparency_data]
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_ORIENTATION, 1) != 1:
        needed = max(needed, _ROTATED_BYTES_PER_PIXEL)
    if mode == "I;16" or get_raw_mode(image).rpartition(";")[2] not in _SIXTEEN_BIT_ORDERS:
        return needed
    has_planes = isinstance(image, TiffImageFile) and TiffLayout.from_tags(image.tag_v2).has_compressed_planes
    return needed + (_PLANES_BYTES_PER_PIXEL if has_planes else _LOW_BYTES_PER_PIXEL)


def _estimate_scaling_bytes(width: int, height: int, spec: InputSpec) -> int:
    """Estimate Pillow's filter weights (doubles), and its copy of the rows, scaled horizontally before vertically."""
    weights = 2 * spec.filter_radius * 8 * (width + height)
    return weights + 4 * max(spec.size) * height  # a rotated image is scaled to the height first
