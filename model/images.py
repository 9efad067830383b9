"""Bytes in, pixels out: the one decoder of requests, training and evaluation.

The numbers are those of the research script that this service replaces: Pillow's default
filter to 256x256, then RGB, values left in 0..255. Orientation is left to Pillow, as it was there: a TIFF is
turned as its tag says, the EXIF of other formats is ignored.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    TILELENGTH,
    TILEWIDTH,
    ImageFileDirectory_v2,
    TiffImageFile,
)

from model.errors import (
    CorruptImage,
    EmptyImage,
    ImageRefused,
    ImageTooManyBytes,
    ImageTooManyPixels,
    UnsupportedImage,
    UnsupportedPixelFormat,
)

# Changes whenever the same file may give other pixels: recorded with each prediction.
PREPROCESSING = "1"
INPUT_SIZE = (256, 256)
MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
MAX_JPEG_SCANS = 50
MAX_JPEG_SEGMENTS = 5_000

# Pillow raises past twice this number, also where only it can in time: a WebP's canvas is allocated on opening.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Its warnings quote numbers of the file, and Python remembers every text: a memory that any caller could fill.
warnings.filterwarnings("ignore", module=r"PIL\.")
# libtiff reads numbers of type 17 (SLONG8), which Pillow skips: a tile's size must not pass unseen.
ImageFileDirectory_v2._load_dispatch[17] = ImageFileDirectory_v2._load_dispatch[16]

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
_INDEXED = {"1", "P", "PA"}
_WITH_ALPHA = {"RGBA", "LA"}
_OPAQUE = {"RGB", "RGBX", "L", "CMYK", "YCbCr"}
# The markers that carry a segment, and the end of the image: stuffed and restart bytes are part of a scan.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One image, ready for the model. `pixels` is uint8 [256, 256, 3]; the rest describes the source."""

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int


def sniff_format(data: bytes) -> str:
    """Name the format from the content alone: JPEG, PNG, WEBP or TIFF.

    Raises EmptyImage, UnsupportedImage.
    """
    if not data:
        raise EmptyImage("The image is empty. Send the bytes of a JPEG, PNG, WebP or TIFF image.")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    raise UnsupportedImage("This is not a JPEG, PNG, WebP or TIFF image. Convert it to one of these.")


def decode_image(data: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode the first frame to RGB at the model's input size.

    Transparent pixels are laid over white; 16-bit samples keep their high byte. What the header promises (pixels,
    and the scans of a JPEG) is checked before any pixel is decoded. A `max_pixels` above MAX_PIXELS lifts nothing.
    Raises a subclass of ImageRefused.
    """
    name = _checked_format(data, max_bytes)
    with _opened(data, name, max_pixels) as image:
        width, height = image.size
        pixels = np.asarray(_at_input_size(image), dtype=np.uint8)
    return DecodedImage(pixels=pixels, format=name, width=width, height=height)


def image_size(data: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """The width and height that the header promises; no pixel is decoded. Raises as `decode_image` does."""
    with _opened(data, _checked_format(data, max_bytes), max_pixels) as image:
        return image.size


def _checked_format(data: bytes, max_bytes: int) -> str:
    if len(data) > max_bytes:
        raise ImageTooManyBytes(f"The image has {len(data)} bytes; at most {max_bytes} are accepted. Compress it.")
    name = sniff_format(data)
    if name == "JPEG":
        _check_jpeg_work(data)
    return name


@contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its header read. What Pillow raises then, and while the image is used, becomes an ImageRefused."""
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            _check_pixels(image, max_pixels)
            yield image
    except ImageRefused:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooManyPixels(
            f"The image has more pixels than the {min(max_pixels, MAX_PIXELS)} that are accepted. Scale it down."
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly any class on hostile bytes
        raise CorruptImage(f"The {name} data cannot be decoded. Check that the file is complete.") from error


def _check_jpeg_work(data: bytes) -> None:
    """Bound the work of a JPEG: each 14 bytes of a hostile one can be a scan over all of its pixels."""
    scans = segments = 0
    position = 2
    while (marker := _JPEG_MARKER.search(data, position)) and data[marker.end() - 1] != 0xD9:
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
        segments += 1
        scans += data[marker.end() - 1] == 0xDA
        if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
            raise UnsupportedImage(
                f"At most {MAX_JPEG_SCANS} scans and {MAX_JPEG_SEGMENTS} segments are accepted. Save a baseline JPEG."
            )


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    """Bound the memory: of the image, and of a tile, which a TIFF may declare larger than its image."""
    sizes = [image.size]
    if isinstance(image, TiffImageFile):
        sizes.append((image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)))
    for width, height in sizes:
        if width * height > max_pixels:
            raise ImageTooManyPixels(
                f"The image or its tile is {width}x{height}; at most {max_pixels} pixels are accepted. Scale it down."
            )


def _at_input_size(image: Image.Image) -> Image.Image:
    """Resize and convert to RGB. Indexed and 16-bit samples are widened first: their values cannot be averaged."""
    if image.mode in _SIXTEEN_BIT and _is_plain(image):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in _INDEXED:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode not in _OPAQUE | _WITH_ALPHA:
        raise UnsupportedPixelFormat(
            f"Pixels of mode {image.mode} have no agreed 8-bit meaning. Convert the image to 8-bit RGB."
        )
    if image.has_transparency_data:
        wide = image if image.mode == "RGBA" else image.convert("RGBA")
        return _over_white(wide.resize(INPUT_SIZE))
    return image.resize(INPUT_SIZE).convert("RGB")


def _is_plain(image: Image.Image) -> bool:
    """Whether "I;16" means 16 bits with 0 as black: Pillow also opens 12-bit and inverted TIFFs as such."""
    if not isinstance(image, TiffImageFile):
        return True
    return image.tag_v2.get(BITSPERSAMPLE) == (16,) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 1


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
