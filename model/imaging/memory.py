"""Estimate the peak memory of decoding an image from its header, before any pixel is decoded.

The numbers follow from the bytes that Pillow keeps per pixel and from the copies that `model.imaging.decode` makes; a
test compares the estimates with measured peaks.
"""

from __future__ import annotations

import math

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    ROWSPERSTRIP,
    SAMPLESPERPIXEL,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)

from model.imaging.bounds import START_OF_SCAN, jpeg_segments
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec

# Bytes per pixel by mode, without and with transparency: the image, its conversion, and its premultiplied copy.
_BYTES_PER_PIXEL = {
    "1": (5, 9),
    "L": (1, 9),
    "P": (5, 9),
    "I;16": (6, 14),
    "RGBA": (8, 8),
}
_BYTES_PER_PIXEL_OF_OTHER_MODES = (4, 12)
# libwebp holds two canvases and the frame's bytes beside the image or its copy.
_WEBP_BYTES_PER_PIXEL = 16
# Pillow decodes a TIFF first and then rotates a copy.
_ROTATED_BYTES_PER_PIXEL = 8
# Copies of the file in memory: the body, its metadata, and for WebP and TIFF one more that their library reads.
_FILE_COPIES = {"PNG": 2, "WEBP": 4}
_OTHER_FILE_COPIES = 3
_TIFF_ORIENTATION = 274
_TIFF_RAW, _TIFF_JPEG = 1, 7
# The Python objects that Pillow creates for each strip that it reads itself.
_STRIP_BYTES = 400
# Tables, rows of pixels, and the tensors of the default input size.
_FIXED_BYTES = 1_500_000
# RGB as uint8 and as float32.
_TENSOR_BYTES_PER_PIXEL = 15
_MARGIN = 1.03


def estimate_decoding_bytes(image: Image.Image, data: bytes, full_size: tuple[int, int], spec: InputSpec) -> int:
    """Estimate the bytes for the file `data`, its decoded image, and scaling that to the model's input.

    `image` is opened but not loaded. `full_size` is the size of the file's image, which `Image.draft` may have reduced.
    """
    width, height = image.size
    pixels = _get_bytes_per_pixel(image) * width * height + _estimate_scaling_bytes(width, height, spec)
    if isinstance(image, JpegImageFile) and _keeps_coefficients(image, data):
        pixels += _estimate_coefficient_bytes(image, full_size)
    elif isinstance(image, TiffImageFile):
        pixels += _estimate_block_bytes(image) + _STRIP_BYTES * len(image.tile)
    copies = _FILE_COPIES.get(image.format or "", _OTHER_FILE_COPIES)
    return math.ceil(pixels * _MARGIN) + copies * len(data) + _FIXED_BYTES + _extra_tensor_bytes(spec)


def estimate_reading_bytes(length: int) -> int:
    """Estimate the bytes to receive a body of `length` and read its header: the chunks, the whole, the metadata."""
    return _OTHER_FILE_COPIES * length + _FIXED_BYTES


def _get_bytes_per_pixel(image: Image.Image) -> int:
    if image.format == "WEBP":
        return _WEBP_BYTES_PER_PIXEL
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    needed = _BYTES_PER_PIXEL.get(mode, _BYTES_PER_PIXEL_OF_OTHER_MODES)[image.has_transparency_data]
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_ORIENTATION, 1) != 1:
        return max(needed, _ROTATED_BYTES_PER_PIXEL)
    return needed


def _estimate_scaling_bytes(width: int, height: int, spec: InputSpec) -> int:
    """Pillow's filter weights (doubles), and the rows that it scales horizontally before it scales the columns."""
    weights = 2 * spec.filter_radius * 8 * (width + height)
    return weights + 4 * max(spec.size) * height  # an image that is turned is scaled to the height first


def _extra_tensor_bytes(spec: InputSpec) -> int:
    extra_pixels = spec.width * spec.height - DEFAULT_INPUT.width * DEFAULT_INPUT.height
    return _TENSOR_BYTES_PER_PIXEL * max(0, extra_pixels)


def _keeps_coefficients(image: JpegImageFile, data: bytes) -> bool:
    """Whether libjpeg buffers all coefficients: the JPEG is progressive, or its first scan lacks some components."""
    first_scan = next((at for marker, at in jpeg_segments(data) if marker == START_OF_SCAN), None)
    return "progressive" in image.info or (first_scan is not None and data[first_scan + 2] < len(image.layer))


def _estimate_coefficient_bytes(image: JpegImageFile, size: tuple[int, int]) -> int:
    """Two bytes per sample in blocks of 8x8, at the resolution of each colour component."""
    samplings = [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer]
    widest, highest = (max(1, *sides) for sides in zip(*samplings, (1, 1), strict=True))
    return sum(
        _count_blocks(size[0] * horizontal / widest, horizontal)
        * _count_blocks(size[1] * vertical / highest, vertical)
        * 128
        for horizontal, vertical in samplings
    )


def _count_blocks(samples: float, sampling_factor: int) -> int:
    """Blocks on one side, padded to whole groups of `sampling_factor` blocks."""
    return math.ceil(samples / 8) + sampling_factor


def _estimate_block_bytes(image: TiffImageFile) -> int:
    """The strip or tile that libtiff decompresses, and as much for its codec; JPEG coefficients take two bytes."""
    tags = image.tag_v2
    codec = tags.get(COMPRESSION, _TIFF_RAW)
    if codec == _TIFF_RAW:
        return 0
    width, height = image.size
    columns, rows = tags.get(TILEWIDTH, width), tags.get(TILELENGTH, min(height, tags.get(ROWSPERSTRIP, height)))
    bits = max(tags.get(BITSPERSAMPLE, (1,))) * tags.get(SAMPLESPERPIXEL, 1)
    unpacked: int = math.ceil(columns * rows * bits / 8)
    return unpacked * (3 if codec == _TIFF_JPEG else 2)
