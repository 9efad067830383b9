"""Find and measure the images whose headers the event loop may read itself, because it takes at most 2 ms.

Worker threads read the headers of files with a lot of metadata, many parts, or a structure that is slow to read.
"""

from __future__ import annotations

from model.errors import CorruptImage, UnsupportedImage
from model.imaging.bounds import MAX_PIXELS
from model.imaging.containers.jpeg import PROGRESSIVE_HUFFMAN, SEQUENTIAL_HUFFMAN, START, read_jpeg
from model.imaging.containers.jpeg_work import reduce_to_structure
from model.imaging.decode import ImageNeeds
from model.imaging.input_spec import InputSpec
from model.imaging.memory import estimate_jpeg_bytes

_MAX_BYTES = 256 * 1024
_MAX_PARTS = 64  # segments of a JPEG or chunks of a PNG in the whole file, because the checks visit each of them
# The bytes 0xFF in a JPEG, one in 256 if the pixels are compressed: searching for markers takes 25 ns for each.
_MAX_MARKERS = 16 * 1024
_MAX_HEADER_BYTES = 4 * 1024  # what may precede the first scan of a JPEG: tables, thumbnails, EXIF
_MAX_CHUNK_BYTES = 1024
# The chunks of a PNG that hold a few numbers; the others may hold text, profiles or EXIF, mostly compressed.
_PLAIN_CHUNKS = frozenset(
    {b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"bKGD", b"tIME", b"sBIT"},
)
_SIMPLE_WEBP = b"VP8 "  # one lossy frame and no metadata; reading the transforms of a lossless one takes 20 ms
_SCALES = (8, 4, 2)  # the factors by which libjpeg can reduce an image while it decodes


def measure_plain_jpeg(data: bytes, spec: InputSpec) -> ImageNeeds | None:
    """Measure a small, plain JPEG in one pass over its segments, in a third of the time of `measure_image`.

    Returns None for all other data, which a worker thread should measure. A damaged table, which Pillow would reject on
    opening, is rejected later, when the image is decoded. Raises ImageTooManyPixels, UnsupportedImage.
    """
    if not data.startswith(START) or len(data) > _MAX_BYTES or data.count(b"\xff") > _MAX_MARKERS:
        return None
    try:
        structure = read_jpeg(data, _MAX_PARTS)
    except (CorruptImage, UnsupportedImage):
        return None
    frame = structure.frame
    is_plain = frame.marker in SEQUENTIAL_HUFFMAN | {PROGRESSIVE_HUFFMAN} and frame.precision == 8
    if not is_plain or len(frame.components) not in (1, 3) or structure.first_scan > _MAX_HEADER_BYTES:
        return None
    if not frame.width or not frame.height:
        return None
    file = reduce_to_structure(data, structure, MAX_PIXELS)
    size = _find_decoded_size(frame.width, frame.height, spec)
    needed_bytes = estimate_jpeg_bytes(size, len(frame.components), len(data), file, spec)
    return ImageNeeds(frame.width, frame.height, needed_bytes, file if file.data is data else None)


def _find_decoded_size(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    """Return the size at which `decode_image` decodes a JPEG: the smallest scale that keeps `reduced_side`."""
    least = min(width, height) // spec.reduced_side
    scale = next((scale for scale in _SCALES if least >= scale), 1)
    return -(-width // scale), -(-height // scale)


def has_quick_header(data: bytes) -> bool:
    """Whether `measure_image` may run on an event loop.

    True for small PNG and WebP files with a small, plain header, and for unsupported formats, which the first bytes
    show. Never for a TIFF, which may consist of nothing but a header, nor for a JPEG, because `measure_plain_jpeg`
    measures those that are plain.
    """
    if data.startswith((b"II", b"MM", START)):
        return False
    if data.startswith(b"\x89PNG"):
        return len(data) <= _MAX_BYTES and _is_plain_png(data)
    if data.startswith(b"RIFF"):
        return len(data) <= _MAX_BYTES and data[12:16] == _SIMPLE_WEBP
    return True


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
