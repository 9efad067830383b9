"""Which image headers an event loop may read itself, because that takes well under a millisecond or two.

Files with much metadata, with many parts and with structures that take long to read are left to the worker threads.
"""

from __future__ import annotations

from model.imaging.containers.jpeg import START_OF_SCAN, read_segments

_MAX_BYTES = 256 * 1024
_MAX_PARTS = 64  # segments of a JPEG, chunks of a PNG: in the whole file, because the work checks visit all
_MAX_HEADER_BYTES = 4 * 1024  # of a JPEG before its first scan: tables, thumbnails, EXIF
_MAX_CHUNK_BYTES = 1024
# The chunks of a PNG that hold a few numbers; the others may hold text, profiles or EXIF, mostly compressed.
_PLAIN_CHUNKS = frozenset(
    {b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"bKGD", b"tIME", b"sBIT"},
)
_SIMPLE_WEBP = b"VP8 "  # one lossy frame and no metadata; reading the transforms of a lossless one takes 20 ms


def has_quick_header(data: bytes) -> bool:
    """Whether `measure_image` may run on an event loop.

    True for small JPEG, PNG and WebP files with a small and plain header, and for data of no supported format, which
    its first bytes show. A TIFF may be all header.
    """
    if data.startswith((b"II", b"MM")):
        return False
    if data.startswith(b"\xff\xd8"):
        return len(data) <= _MAX_BYTES and _is_plain_jpeg(data)
    if data.startswith(b"\x89PNG"):
        return len(data) <= _MAX_BYTES and _is_plain_png(data)
    if data.startswith(b"RIFF"):
        return len(data) <= _MAX_BYTES and data[12:16] == _SIMPLE_WEBP
    return True


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether the first scan begins early, and few segments follow."""
    has_scan = False
    for count, (marker, segment) in enumerate(read_segments(data), start=1):
        if count > _MAX_PARTS or (not has_scan and segment.start > _MAX_HEADER_BYTES):
            return False
        has_scan = has_scan or marker == START_OF_SCAN
    return has_scan


def _is_plain_png(data: bytes) -> bool:
    """Whether only small chunks of numbers come before the pixels, and few chunks follow."""
    position, in_header = 8, True
    for _ in range(_MAX_PARTS):
        kind, length = data[position + 4 : position + 8], int.from_bytes(data[position : position + 4])
        if len(kind) < 4 or kind == b"IEND":
            return True
        in_header = in_header and kind != b"IDAT"
        if in_header and (kind not in _PLAIN_CHUNKS or length > _MAX_CHUNK_BYTES):
            return False
        position += 12 + length
    return False
