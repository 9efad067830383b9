"""Decode images to a model's input. Requests, training and evaluation all use this decoder.

The pixels equal those of the research script that trained the model: resized with Pillow, then converted to RGB, values
in 0..255. There are two exceptions: the image is turned upright according to its metadata, and a large JPEG is decoded
at a lower scale to save memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from model.errors import (
    CorruptImage,
    EmptyImage,
    ImageRejected,
    ImageTooManyPixels,
    UnsupportedImage,
    UnsupportedPixelFormat,
)
from model.imaging.bounds import MAX_BYTES, MAX_PIXELS, check_byte_count, check_size
from model.imaging.containers.jpeg_work import reduce_jpeg
from model.imaging.containers.png import reduce_png
from model.imaging.containers.reduced import ReducedFile
from model.imaging.containers.tiff import reduce_tiff
from model.imaging.containers.tiff_metadata import read_metadata
from model.imaging.containers.webp import reduce_webp
from model.imaging.convert import convert_to_input
from model.imaging.ground_resolution import read_ground_resolution
from model.imaging.input_spec import InputSpec
from model.imaging.jpeg_frames import check_undecoded_jpeg
from model.imaging.memory import estimate_decoding_bytes, estimate_webp_bytes
from model.imaging.orientation import find_upright_operation, get_stored_size
from model.imaging.samples import get_bit_depth, read_hints
from model.imaging.tiff_layouts import check_unopened_tiff, prepare_layout

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_REDUCERS = {"JPEG": reduce_jpeg, "PNG": reduce_png, "WEBP": reduce_webp, "TIFF": reduce_tiff}
_LAYOUT_CHECKS = {"JPEG": check_undecoded_jpeg, "TIFF": check_unopened_tiff}


class DecodedImage(Struct, frozen=True):
    """The model's input, `pixels` as uint8 [height, width, 3], and properties of the source.

    `width` and `height` are as stored. `bit_depth` is the bits of a sample in the file. `scaling` says how samples
    were converted to 8 bits: "none", or the range that was scaled, such as "16_to_8". `ground_resolution_m` is the side
    of a stored pixel on the ground in metres, None if the file does not declare it.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int
    bit_depth: int
    scaling: str
    ground_resolution_m: float | None = None


class ImageNeeds(Struct, frozen=True):
    """An image's size in pixels, and an upper bound of the memory in bytes to decode it, including the file.

    `reduced` lets `decode_image` skip the checks. It is None if it would be a copy of the file, because the memory for
    a copy is not reserved yet.
    """

    width: int
    height: int
    bytes: int
    reduced: ReducedFile | None = None

    @property
    def pixels(self) -> int:
        return self.width * self.height


def sniff_format(data: bytes) -> str:
    """Return "JPEG", "PNG", "WEBP" or "TIFF" from the first bytes. Raises EmptyImage, UnsupportedImage."""
    if not data:
        raise EmptyImage("The image is empty. Send the bytes of a JPEG, PNG, WebP or TIFF image.")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    raise UnsupportedImage("This is not a JPEG, PNG, WebP or TIFF image. Convert it to one of these.")


def decode_image(
    data: bytes,
    spec: InputSpec,
    *,
    reduced: ReducedFile | None = None,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> DecodedImage:
    """Decode the first frame to the model's input.

    The image is turned upright according to its metadata. Transparent pixels are composited over white; 16-bit samples
    are scaled from the range that they use. The limits on pixels and work are checked before any pixel is decoded. A
    `max_pixels` above MAX_PIXELS does not raise that limit. `reduced` is the result of `measure_image` for the same
    data. Raises a subclass of ImageRejected.
    """
    name = _check_format(data, max_bytes)
    file = reduced or _reduce_file(data, name, max_pixels)
    with _open_image(file.data, name, max_pixels) as image:
        width, height = get_stored_size(image)
        _reduce_scale(image, spec)
        bit_depth = get_bit_depth(image, file.data)
        operation = find_upright_operation(data, name)
        metadata = read_metadata(data) if name == "TIFF" else {}
        converted, scaling = convert_to_input(image, file.data, operation, spec, read_hints(metadata))
    pixels, resolution = np.asarray(converted, dtype=np.uint8), read_ground_resolution(metadata, height)
    return DecodedImage(pixels, name, width, height, bit_depth, scaling, resolution)


def measure_image(
    data: bytes, spec: InputSpec, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> ImageNeeds:
    """Read the size and estimate the memory without decoding pixels. Raises the same errors as `decode_image`."""
    name = _check_format(data, max_bytes)
    file = _reduce_file(data, name, max_pixels)
    if file.size is not None:
        return ImageNeeds(*file.size, estimate_webp_bytes(file.size, len(data), file, spec))
    with _open_image(file.data, name, max_pixels) as image:
        width, height = get_stored_size(image)
        _reduce_scale(image, spec)
        needed_bytes = estimate_decoding_bytes(image, len(data), file, spec)
        return ImageNeeds(width, height, needed_bytes, file if file.data is data else None)


def _check_format(data: bytes, max_bytes: int) -> str:
    check_byte_count(len(data), max_bytes)
    return sniff_format(data)


def _reduce_file(data: bytes, name: str, max_pixels: int) -> ReducedFile:
    """Check the structure of the file, and keep only the parts that its first frame needs."""
    try:
        return _REDUCERS[name](data, max_pixels)
    except CorruptImage:
        _check_layout(data, name)
        raise
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:  # hostile bytes that a check does not foresee
        if _is_system_error(error):
            raise
        _check_layout(data, name)
        raise _describe_corrupt(name) from error


@contextmanager
def _open_image(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open the image without decoding it. Convert Pillow's errors, including those in the block, to ImageRejected."""
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            check_size(*image.size, max_pixels)
            if isinstance(image, TiffImageFile):
                prepare_layout(image)
            yield image
    except (ImageRejected, MemoryError):  # running out of memory does not mean that the image is bad
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooManyPixels(
            f"The image has more than {min(max_pixels, MAX_PIXELS)} pixels, which is the limit. Scale it down."
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly any class on hostile bytes
        if _is_system_error(error):
            raise
        _check_layout(data, name)
        raise _describe_corrupt(name) from error


def _is_system_error(error: Exception) -> bool:
    """Whether the operating system caused the error, for example too many open files during a lazy import."""
    return isinstance(error, OSError) and error.errno is not None


def _describe_corrupt(name: str) -> CorruptImage:
    return CorruptImage(f"The {name} data cannot be decoded. Check that the file is complete.")


def _check_layout(data: bytes, name: str) -> None:
    """Raise UnsupportedPixelFormat if the file cannot be decoded because of its layout rather than damage."""
    if name in _LAYOUT_CHECKS:
        try:
            _LAYOUT_CHECKS[name](data)
        except (UnsupportedPixelFormat, MemoryError):
            raise
        except Exception:  # the header is damaged too
            return


def _reduce_scale(image: Image.Image, spec: InputSpec) -> None:
    """Have Pillow decode a large JPEG at a lower scale. It takes a tenth of the memory; pixels differ by at most 2."""
    side = spec.reduced_side
    if isinstance(image, JpegImageFile) and min(image.size) >= 2 * side:
        image.draft(None, (side, side))
