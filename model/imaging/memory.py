"""How much memory the decoding of an image takes at its peak: known from the header, before a pixel is decoded.

The numbers follow from what Pillow keeps for each pixel and which copies `model.imaging.decode` makes it take; a test
compares them with measured peaks.
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

# Bytes a pixel by mode, opaque and with transparency: the image, what it is widened to, its premultiplied copy.
_BYTES_A_PIXEL = {
    "1": (5, 9),
    "L": (1, 9),
    "P": (5, 9),
    "I;16": (6, 6),
    "RGBA": (8, 8),
}
_OTHER_MODES = (4, 12)
# Two canvases and the frame's bytes beside the image, or beside its copy.
_WEBP_BYTES_A_PIXEL = 16
# A TIFF is turned after it was decoded.
_TURNED_BYTES_A_PIXEL = 8
# How often the file itself is in memory: also as metadata, and all of a WebP or a TIFF once more for its library.
_FILES = {"PNG": 2, "WEBP": 4}
_OTHER_FILES = 3
_TIFF_ORIENTATION = 274
_TIFF_RAW, _TIFF_JPEG = 1, 7
# What Pillow makes of each strip that it reads itself.
_STRIP_BYTES = 400
# Tensors, tables, rows of pixels.
_ALWAYS_BYTES = 1_500_000
_MARGIN = 1.03


def decoding_bytes(image: Image.Image, data: bytes, full_size: tuple[int, int]) -> int:
    """Bytes for the file `data`, its decoding, and its scaling to the model's size.

    `image` is opened, not loaded; its size may be reduced (`Image.draft`), that of its file is `full_size`.
    """
    width, height = image.size
    pixels = _bytes_a_pixel(image) * width * height + _scaling_bytes(width, height)
    if isinstance(image, JpegImageFile) and _keeps_coefficients(image, data):
        pixels += _coefficient_bytes(image, full_size)
    elif isinstance(image, TiffImageFile):
        pixels += _block_bytes(image) + _STRIP_BYTES * len(image.tile)
    files = _FILES.get(image.format or "", _OTHER_FILES)
    return math.ceil(pixels * _MARGIN) + files * len(data) + _ALWAYS_BYTES


def reading_bytes(length: int) -> int:
    """Bytes for a body of `length` while it is read and its header judged: its pieces, the whole, its metadata."""
    return _OTHER_FILES * length + _ALWAYS_BYTES


def _bytes_a_pixel(image: Image.Image) -> int:
    if image.format == "WEBP":
        return _WEBP_BYTES_A_PIXEL
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    needed = _BYTES_A_PIXEL.get(mode, _OTHER_MODES)[image.has_transparency_data]
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_ORIENTATION, 1) != 1:
        return max(needed, _TURNED_BYTES_A_PIXEL)
    return needed


def _scaling_bytes(width: int, height: int) -> int:
    """Weights (four doubles a source pixel of each side), and rows of 256 pixels before the columns are scaled."""
    return 32 * (width + height) + 4 * 256 * height


def _keeps_coefficients(image: JpegImageFile, data: bytes) -> bool:
    """Whether libjpeg holds all of the image before its first row: it is progressive, or its colours come apart."""
    first_scan = next((at for marker, at in jpeg_segments(data) if marker == START_OF_SCAN), None)
    return "progressive" in image.info or (first_scan is not None and data[first_scan + 2] < len(image.layer))


def _coefficient_bytes(image: JpegImageFile, size: tuple[int, int]) -> int:
    """Two bytes a sample, in blocks of 8x8, by each colour's own resolution."""
    samplings = [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer]
    widest, highest = (max(1, *sides) for sides in zip(*samplings, (1, 1), strict=True))
    return sum(
        _blocks(size[0] * horizontal / widest, horizontal) * _blocks(size[1] * vertical / highest, vertical) * 128
        for horizontal, vertical in samplings
    )


def _blocks(samples: float, at_once: int) -> int:
    return math.ceil(samples / 8) + at_once


def _block_bytes(image: TiffImageFile) -> int:
    """The strip or tile that libtiff unpacks at once, and as much for its codec; JPEG's coefficients take two bytes."""
    tags = image.tag_v2
    codec = tags.get(COMPRESSION, _TIFF_RAW)
    if codec == _TIFF_RAW:
        return 0
    width, height = image.size
    columns, rows = tags.get(TILEWIDTH, width), tags.get(TILELENGTH, min(height, tags.get(ROWSPERSTRIP, height)))
    bits = max(tags.get(BITSPERSAMPLE, (1,))) * tags.get(SAMPLESPERPIXEL, 1)
    unpacked: int = math.ceil(columns * rows * bits / 8)
    return unpacked * (3 if codec == _TIFF_JPEG else 2)
