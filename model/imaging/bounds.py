"""Limits on what a hostile file can make the decoder do, checked before it does it."""

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
# What a JPEG can have. Scaling a strip of 1x50,000,000 pixels to 256x256 would take 13 GB.
MAX_SIDE = 65_535
MAX_JPEG_SCANS = 50
MAX_JPEG_SEGMENTS = 5_000
# A PNG of one-character texts took twelve times its bytes; one of colour profiles a megabyte of work for each kilobyte.
MAX_PNG_CHUNKS = 20_000
MAX_PNG_EXTRAS = 5_000  # beside the pixels'
MAX_TIFF_TAGS = 4_096
START_OF_SCAN = 0xDA
# A file of 4 MB that claims a million strips took 280 MB and ten seconds to open.
MAX_TIFF_NUMBERS = 32_768

_TIFF_TEXTS = (1, 2, 7)  # BYTE, ASCII and UNDEFINED stay bytes
# The markers that carry a segment, and the end of the image: stuffed and restart bytes are part of a scan.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")

# Pillow raises past twice this number, also where only it can in time: a WebP's canvas is allocated on opening.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Its warnings quote numbers of the file, and Python remembers every text: a memory that any caller could fill.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Packed texts of 100 KB grow to the 64 MB that Pillow allows all texts together.
PngImagePlugin.MAX_TEXT_MEMORY = PngImagePlugin.MAX_TEXT_CHUNK

_Read = Callable[..., Any]


def _bound_tiff_numbers() -> None:
    """Let Pillow make tuples only of as many numbers as an honest file has."""
    readers: dict[int, tuple[int, _Read]] = ImageFileDirectory_v2._load_dispatch
    # libtiff reads numbers of type 17 (SLONG8), which Pillow skips: a tile's size must not pass unseen.
    readers[17] = readers[16]
    for kind, (size, read) in list(readers.items()):
        if kind not in _TIFF_TEXTS:
            readers[kind] = size, _bounded(read, size * MAX_TIFF_NUMBERS)


def _bounded(read: _Read, max_bytes: int) -> _Read:
    def read_bounded(directory: ImageFileDirectory_v2, data: bytes, legacy_api: bool = True) -> Any:
        if len(data) > max_bytes:
            raise UnsupportedImage(
                f"At most {MAX_TIFF_NUMBERS} strips or tiles are accepted. Save the TIFF with larger ones."
            )
        return read(directory, data, legacy_api)

    return read_bounded


_bound_tiff_numbers()


def _silence_libtiff() -> None:
    """Else it writes a line to standard error for each row of a fax that it cannot read: megabytes for a small file."""
    decoders = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt"):
        handler = getattr(decoders, name, None)  # not there where Pillow was built without libtiff
        if handler is not None:
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


_silence_libtiff()
# Pillow itself logs errors that name numbers of the file; what it raises is told to the caller.
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment of a JPEG and where its length stands, up to the end of the image."""
    position = 2
    while (marker := _JPEG_MARKER.search(data, position)) and data[marker.end() - 1] != 0xD9:
        yield data[marker.end() - 1], marker.end()
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])


def check_jpeg_work(data: bytes) -> None:
    """Bound the work of a JPEG: each 14 bytes of a hostile one can be a scan over all of its pixels."""
    scans = 0
    for segments, (marker, _) in enumerate(jpeg_segments(data), start=1):
        scans += marker == START_OF_SCAN
        if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
            raise UnsupportedImage(
                f"At most {MAX_JPEG_SCANS} scans and {MAX_JPEG_SEGMENTS} segments are accepted. Save a baseline JPEG."
            )


def check_png_work(data: bytes) -> None:
    """Bound what a PNG has beside its pixels, before and behind them: Pillow reads and keeps every chunk."""
    position, chunks, extras, profiles = 8, 0, 0, 0
    while len(kind := data[position + 4 : position + 8]) == 4 and kind != b"IEND":
        chunks += 1
        extras += kind != b"IDAT"
        profiles += kind == b"iCCP"
        if chunks > MAX_PNG_CHUNKS or extras > MAX_PNG_EXTRAS or profiles > 1:
            raise UnsupportedImage(
                f"At most {MAX_PNG_CHUNKS} chunks, {MAX_PNG_EXTRAS} beside the pixels' and one colour profile are "
                "accepted. Save the PNG without metadata."
            )
        position += 12 + int.from_bytes(data[position : position + 4])


def check_tiff_work(data: bytes) -> None:
    """Bound the tags of a TIFF; a BigTIFF may claim as many as its bytes have room for."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    big = data[2] == 43  # as Pillow tells them apart
    where, width = (slice(8, 16), 8) if big else (slice(4, 8), 2)
    offset = int.from_bytes(data[where], order)
    # Before the eighth byte there are none: the file is broken.
    if offset >= 8 and int.from_bytes(data[offset : offset + width], order) > MAX_TIFF_TAGS:
        raise UnsupportedImage(f"At most {MAX_TIFF_TAGS} tags are accepted. Save the TIFF without metadata.")


def check_pixels(image: Image.Image, max_pixels: int) -> None:
    """Bound the memory: of the image, and of a tile, which a TIFF may declare larger than its image."""
    sizes = [image.size]
    if isinstance(image, TiffImageFile):
        sizes.append((image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)))
    for width, height in sizes:
        if width * height > max_pixels:
            raise ImageTooManyPixels(
                f"The image or its tile is {width}x{height}; at most {max_pixels} pixels are accepted. Scale it down."
            )
    if max(image.size) > MAX_SIDE:
        raise ImageTooManyPixels(
            f"A side of the image has {max(image.size)} pixels; at most {MAX_SIDE} are accepted. Cut it into pieces."
        )
