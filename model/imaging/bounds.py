"""Limits on the size of images, and settings that silence Pillow. model.imaging.containers limits the work."""

from __future__ import annotations

import ctypes
import logging
import os
import warnings
from pathlib import Path

from PIL import Image, _imaging

from model.errors import ImageTooManyBytes, ImageTooManyPixels

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
# The largest side of a JPEG. Scaling a strip of 1x50,000,000 pixels to 256x256 would take 13 GB.
MAX_SIDE = 65_535
# Pillow raises above twice this number. It must check this itself, because opening a WebP allocates the canvas.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Pillow's warnings quote numbers from the file and Python remembers every text, so callers could fill the memory.
warnings.filterwarnings("ignore", module=r"PIL\.")


def _silence_libtiff() -> None:
    """Stop libtiff from writing a line to stderr for each unreadable fax row, megabytes for a small file."""
    decoders = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt"):
        handler = getattr(decoders, name, None)  # absent when Pillow was built without libtiff
        if handler is not None:
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


_silence_libtiff()
# Pillow also logs the errors that it raises, with numbers from the file. The exception is enough.
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def read_image_file(path: Path) -> bytes:
    """Read a file that the user has named, which may be of any size. Raises ImageTooManyBytes, OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
        check_byte_count(max(len(data), os.fstat(file.fileno()).st_size))
    return data


def check_byte_count(count: int, max_bytes: int = MAX_BYTES) -> None:
    """Raises ImageTooManyBytes."""
    if count > max_bytes:
        raise ImageTooManyBytes(f"The image has {count} bytes; the limit is {max_bytes}. Compress it.")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Limit the pixels and the sides of an image, or of a TIFF's tile, which may be larger than the image.

    A `max_pixels` above MAX_PIXELS does not raise that limit. Raises ImageTooManyPixels.
    """
    max_pixels = min(max_pixels, MAX_PIXELS)
    if width * height > max_pixels:
        raise ImageTooManyPixels(
            f"The image or its tile is {width}x{height}; the limit is {max_pixels} pixels. Scale it down."
        )
    if max(width, height) > MAX_SIDE:
        raise ImageTooManyPixels(
            f"A side of the image has {max(width, height)} pixels; the limit is {MAX_SIDE}. Cut it into pieces."
        )
