"""Bytes in, pixels out: the one decoder of requests, training and evaluation.

The numbers are those of the research script that this service replaces: Pillow's default
filter to 256x256, then RGB, values left in 0..255. Orientation is left to Pillow, as it was there: a TIFF is
turned as its tag says, the EXIF of other formats is ignored. Only a large JPEG differs: it is decoded at a lower scale.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from model.errors import (
    CorruptImage,
    EmptyImage,
    ImageRefused,
    ImageTooManyBytes,
    ImageTooManyPixels,
    UnsupportedImage,
    UnsupportedPixelFormat,
)
from model.imaging.bounds import (
    MAX_BYTES,
    MAX_PIXELS,
    check_jpeg_work,
    check_pixels,
    check_png_work,
    check_tiff_work,
)
from model.imaging.memory import decoding_bytes

# Changes whenever the same file may give other pixels: recorded with each prediction.
PREPROCESSING = "2"
INPUT_SIZE = (256, 256)
# A JPEG with both sides at least twice this is decoded at a half or a quarter, and no smaller than this.
REDUCED_SIDE = 1024
_SMALL_BYTES = 256 * 1024

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_WORK = {"JPEG": check_jpeg_work, "PNG": check_png_work, "TIFF": check_tiff_work}
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
_INDEXED = {"1", "P", "PA"}
_WITH_ALPHA = {"RGBA", "LA"}
_OPAQUE = {"RGB", "RGBX", "L", "CMYK", "YCbCr"}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One image, ready for the model. `pixels` is uint8 [256, 256, 3]; the rest describes the source."""

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ImageNeeds:
    """An image's size in pixels, and the memory in bytes that it takes at most until it is ready, the file included."""

    width: int
    height: int
    bytes: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


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
        _reduce(image)
        pixels = np.asarray(_at_input_size(image), dtype=np.uint8)
    return DecodedImage(pixels=pixels, format=name, width=width, height=height)


def image_needs(data: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageNeeds:
    """What the header promises; no pixel is decoded. Raises as `decode_image` does."""
    with _opened(data, _checked_format(data, max_bytes), max_pixels) as image:
        width, height = image.size
        _reduce(image)
        return ImageNeeds(width, height, decoding_bytes(image, data, (width, height)))


def has_quick_header(data: bytes) -> bool:
    """Whether `image_needs` may run on an event loop: in a larger file it may search long, a TIFF may be all header."""
    return len(data) <= _SMALL_BYTES and not data.startswith((b"II", b"MM"))


def _checked_format(data: bytes, max_bytes: int) -> str:
    if len(data) > max_bytes:
        raise ImageTooManyBytes(f"The image has {len(data)} bytes; at most {max_bytes} are accepted. Compress it.")
    name = sniff_format(data)
    if name in _WORK:
        _WORK[name](data)
    return name


@contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its header read. What Pillow raises then, and while the image is used, becomes an ImageRefused."""
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            check_pixels(image, max_pixels)
            yield image
    except (ImageRefused, MemoryError):  # want of memory is no fault of the image's
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooManyPixels(
            f"The image has more pixels than the {min(max_pixels, MAX_PIXELS)} that are accepted. Scale it down."
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly any class on hostile bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the machine's own: no file can be opened any more, as for an import
        raise CorruptImage(f"The {name} data cannot be decoded. Check that the file is complete.") from error


def _reduce(image: Image.Image) -> None:
    """Have a large JPEG decoded at a lower scale: its pixels are at most 2 of 255 off, for a tenth of the memory."""
    if isinstance(image, JpegImageFile) and min(image.size) >= 2 * REDUCED_SIDE:
        image.draft(None, (REDUCED_SIDE, REDUCED_SIDE))


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
