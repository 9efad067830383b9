"""Limits on the work that a hostile file can cause, checked before the decoder runs."""

from __future__ import annotations

import ctypes
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

from PIL import Image, PngImagePlugin, _imaging
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, ImageFileDirectory_v2, TiffImageFile

from model.errors import ImageTooManyPixels, UnsupportedImage

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
# The largest side of a JPEG. Scaling a strip of 1x50,000,000 pixels to 256x256 would take 13 GB.
MAX_SIDE = 65_535
MAX_JPEG_SCANS = 50
MAX_JPEG_SEGMENTS = 5_000
# A PNG full of one-character texts took twelve times its size in memory; one full of colour profiles inflated each
# kilobyte to a megabyte.
MAX_PNG_CHUNKS = 20_000
MAX_PNG_EXTRAS = 5_000  # chunks other than pixel data
MAX_TIFF_TAGS = 4_096
START_OF_SCAN = 0xDA
# A 4 MB file that declares a million strips took 280 MB and ten seconds to open.
MAX_TIFF_NUMBERS = 32_768

_TIFF_TEXTS = (1, 2, 7)  # BYTE, ASCII and UNDEFINED stay bytes
# Markers with a segment, and the end-of-image marker. Stuffed bytes and restart markers belong to the scan.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")

# Pillow raises above twice this number. Only Pillow can check in time: it allocates a WebP's canvas on opening.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Pillow's warnings quote numbers of the file and Python remembers every text, so callers could fill the memory.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Pillow allows 64 MB for all texts together, to which 100 KB of compressed texts expand.
PngImagePlugin.MAX_TEXT_MEMORY = PngImagePlugin.MAX_TEXT_CHUNK

_Read = Callable[..., Any]


def _bound_tiff_numbers() -> None:
    """Reject tags with more numbers than a normal file has before Pillow makes tuples of them."""
    readers: dict[int, tuple[int, _Read]] = ImageFileDirectory_v2._load_dispatch
    # libtiff reads numbers of type 17 (SLONG8), which Pillow skips; `check_pixels` must see a tile's size, too.
    readers[17] = readers[16]
    for kind, (size, read) in list(readers.items()):
        if kind not in _TIFF_TEXTS:
            readers[kind] = size, _bounded(read, size * MAX_TIFF_NUMBERS)


def _bounded(read: _Read, max_bytes: int) -> _Read:
    def read_bounded(directory: ImageFileDirectory_v2, data: bytes, legacy_api: bool = True) -> Any:
        if len(data) > max_bytes:
            raise UnsupportedImage(
                f"The TIFF has more than {MAX_TIFF_NUMBERS} strips or tiles. Save it with larger ones."
            )
        return read(directory, data, legacy_api)

    return read_bounded


_bound_tiff_numbers()


def _silence_libtiff() -> None:
    """Stop libtiff from writing a line to stderr for each unreadable fax row: megabytes for a small file."""
    decoders = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt"):
        handler = getattr(decoders, name, None)  # absent when Pillow was built without libtiff
        if handler is not None:
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


_silence_libtiff()
# Pillow also logs the errors that it raises, with numbers of the file; the caller gets the exception.
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker of each JPEG segment and the offset of its length field, up to the end of the image."""
    position = 2
    while (marker := _JPEG_MARKER.search(data, position)) and data[marker.end() - 1] != 0xD9:
        yield data[marker.end() - 1], marker.end()
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])


def check_jpeg_work(data: bytes) -> None:
    """Limit scans and segments of a JPEG: every 14 bytes can declare one more scan over all pixels."""
    scans = 0
    for segments, (marker, _) in enumerate(jpeg_segments(data), start=1):
        scans += marker == START_OF_SCAN
        if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
            raise UnsupportedImage(
                f"The JPEG has more than {MAX_JPEG_SCANS} scans or {MAX_JPEG_SEGMENTS} segments. Save a baseline JPEG."
            )


def check_png_work(data: bytes) -> None:
    """Limit the chunks of a PNG, before and after its pixels: Pillow reads and keeps all of them."""
    position, chunks, extras, profiles = 8, 0, 0, 0
    while len(kind := data[position + 4 : position + 8]) == 4 and kind != b"IEND":
        chunks += 1
        extras += kind != b"IDAT"
        profiles += kind == b"iCCP"
        if chunks > MAX_PNG_CHUNKS or extras > MAX_PNG_EXTRAS or profiles > 1:
            raise UnsupportedImage(
                f"The PNG has more than {MAX_PNG_CHUNKS} chunks, {MAX_PNG_EXTRAS} metadata chunks or one colour "
                "profile. Save the PNG without metadata."
            )
        position += 12 + int.from_bytes(data[position : position + 4])


def check_tiff_work(data: bytes) -> None:
    """Limit the tags of a TIFF: a BigTIFF may declare as many as fit into the file."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    big = data[2] == 43  # the test that Pillow uses
    where, width = (slice(8, 16), 8) if big else (slice(4, 8), 2)
    offset = int.from_bytes(data[where], order)
    # An offset inside the header is invalid; Pillow rejects it.
    if offset >= 8 and int.from_bytes(data[offset : offset + width], order) > MAX_TIFF_TAGS:
        raise UnsupportedImage(f"The TIFF has more than {MAX_TIFF_TAGS} tags. Save it without metadata.")


def check_pixels(image: Image.Image, max_pixels: int) -> None:
    """Limit the pixels of the image and of a tile, which a TIFF may declare larger than its image."""
    sizes = [image.size]
    if isinstance(image, TiffImageFile):
        sizes.append((image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)))
    for width, height in sizes:
        if width * height > max_pixels:
            raise ImageTooManyPixels(
                f"The image or its tile is {width}x{height}; the limit is {max_pixels} pixels. Scale it down."
            )
    if max(image.size) > MAX_SIDE:
        raise ImageTooManyPixels(
            f"A side of the image has {max(image.size)} pixels; the limit is {MAX_SIDE}. Cut it into pieces."
        )
