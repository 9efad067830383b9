"""Read the orientation of a file (Exif 2.32, tag 274) as the operation that turns its pixels upright."""

from __future__ import annotations

from typing import Literal

from PIL import Image
from PIL.Image import Transpose
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from model.imaging.containers.jpeg import START_OF_SCAN, read_segments
from model.imaging.containers.png import MAX_CHUNKS as MAX_PNG_CHUNKS
from model.imaging.containers.tiff_directory import MAX_TAGS

_OPERATIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SWAPPING_SIDES = {Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90}
_ORIENTATION_TAG = 274
_INTEGER_BYTES = {3: 2, 4: 4}  # SHORT and LONG
_ENTRY_BYTES = 12
_APP1 = 0xE1
_MAX_EXIF_BYTES = 65_536  # the first directory comes early
_EXIF_PREFIX = b"Exif\0\0"
_PNG_SIGNATURE_BYTES, _RIFF_HEADER_BYTES = 8, 12
_MAX_WEBP_CHUNKS = 1_000


def find_upright_operation(data: bytes, name: str) -> Transpose | None:
    """Return the operation that turns the image in a file of the format `name` upright, or None.

    Also returns None for a TIFF, which Pillow itself turns, and for unreadable metadata.
    """
    find = {"JPEG": _find_in_jpeg, "PNG": _find_in_png, "WEBP": _find_in_webp}.get(name)
    if find is None:
        return None
    return _OPERATIONS.get(_read_orientation(find(data).removeprefix(_EXIF_PREFIX)))


def swaps_sides(operation: Transpose | None) -> bool:
    return operation in _SWAPPING_SIDES


def get_stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as stored in the file. For a TIFF, Pillow reports the upright size instead."""
    if isinstance(image, TiffImageFile):
        return image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return image.size


def _find_in_jpeg(data: bytes) -> bytes:
    for marker, segment in read_segments(data):
        if marker == START_OF_SCAN:
            break
        if marker == _APP1 and data.startswith(_EXIF_PREFIX, segment.start + 4):
            return data[segment.start + 4 : segment.stop]
    return b""


def _find_in_png(data: bytes) -> bytes:
    """Search the whole file: the chunk may follow the pixels."""
    position = _PNG_SIGNATURE_BYTES
    for _ in range(MAX_PNG_CHUNKS):
        if position >= len(data):
            break
        length = int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] == b"eXIf":
            return data[position + 8 : position + 8 + min(length, _MAX_EXIF_BYTES)]
        position += 12 + length
    return b""


def _find_in_webp(data: bytes) -> bytes:
    position = _RIFF_HEADER_BYTES
    for _ in range(_MAX_WEBP_CHUNKS):
        if position >= len(data):
            break
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            return data[position + 8 : position + 8 + min(length, _MAX_EXIF_BYTES)]
        position += 8 + length + length % 2
    return b""


def _read_orientation(exif: bytes) -> int:
    """Return the tag's value from the first directory of Exif data, which has the format of a TIFF; 1 without it."""
    order: Literal["little", "big"] = "little" if exif.startswith(b"II") else "big"
    start = int.from_bytes(exif[4:8], order)
    count = min(MAX_TAGS, int.from_bytes(exif[start : start + 2], order))
    for entry in range(start + 2, start + 2 + _ENTRY_BYTES * count, _ENTRY_BYTES):
        tag, kind = (int.from_bytes(exif[at : at + 2], order) for at in (entry, entry + 2))
        if tag == _ORIENTATION_TAG:
            return int.from_bytes(exif[entry + 8 : entry + 8 + _INTEGER_BYTES.get(kind, 0)], order)
    return 1
