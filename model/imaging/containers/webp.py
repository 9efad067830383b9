"""Keep the chunks of a WebP (RFC 9649) that its first frame's pixels need."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from model.errors import CorruptImage, UnsupportedImage
from model.imaging.bounds import check_size
from model.imaging.containers.reduced import ReducedFile
from model.imaging.containers.vp8l import estimate_alpha_bytes, estimate_vp8l_bytes, read_vp8l_size

MAX_CHUNKS = 1_000  # before the end of the first frame
_FIRST_CHUNK = 12
_CHUNK_HEADER = 8
_FRAME_HEADER = 16
_MAX_HEADER = 10  # of a bitstream or an extended file, up to and including the size
_LOSSY_START = b"\x9d\x01\x2a"
_LOSSY, _LOSSLESS, _ALPHA = b"VP8 ", b"VP8L", b"ALPH"
_EXTENDED, _ANIMATION, _FRAME = b"VP8X", b"ANIM", b"ANMF"
_IMAGE = _ALPHA, _LOSSY, _LOSSLESS
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # colour profile, EXIF, XMP


def reduce_webp(data: bytes, max_pixels: int) -> ReducedFile:
    """Keep the header and the first frame. Raises CorruptImage, UnsupportedImage, ImageTooManyPixels."""
    wanted = _EXTENDED, _ANIMATION, _FRAME, *_IMAGE
    chunks = list(_find_chunks(data, slice(_FIRST_CHUNK, len(data)), wanted))
    size = _read_canvas(data, *chunks[0])
    check_size(*size, max_pixels)
    buffers = sum(_estimate_chunk(data, kind, part, size) for kind, part in chunks)
    kept = [_keep_chunk(data, kind, part) for kind, part in chunks]
    length = sum(map(len, kept))
    if _FIRST_CHUNK + length == len(data):
        return ReducedFile(data, buffers, size)
    start = b"RIFF" + struct.pack("<I", 4 + length) + b"WEBP"
    return ReducedFile(b"".join([start, *kept]), buffers, size)


def _find_chunks(data: bytes, within: slice, wanted: Iterable[bytes]) -> Iterator[tuple[bytes, slice]]:
    """Yield the kind and the range, including the header, of the first chunk of each kind, until that of the pixels.

    libwebp does not read what follows.
    """
    missing = set(wanted)
    for kind, part in _read_chunks(data, within.start, within.stop):
        if kind in missing:
            missing.remove(kind)
            yield kind, part
        if kind in (_FRAME, _LOSSY, _LOSSLESS):
            return
    raise CorruptImage("The WebP has no pixels. Check that the file is complete.")


def _read_chunks(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, slice]]:
    for _ in range(MAX_CHUNKS):
        if start + _CHUNK_HEADER > stop:
            return
        length = int.from_bytes(data[start + 4 : start + 8], "little")
        end = start + _CHUNK_HEADER + length + length % 2
        yield data[start : start + 4], slice(start, end)
        start = end
    raise UnsupportedImage(f"The WebP has more than {MAX_CHUNKS} chunks before its pixels. Save it without metadata.")


def _keep_chunk(data: bytes, kind: bytes, part: slice) -> memoryview | bytes:
    chunk = memoryview(data)[part]
    if kind == _EXTENDED and len(chunk) > _CHUNK_HEADER and chunk[_CHUNK_HEADER] & _METADATA_FLAGS:
        flags = chunk[_CHUNK_HEADER] & ~_METADATA_FLAGS
        return bytes(chunk[:_CHUNK_HEADER]) + bytes([flags]) + bytes(chunk[_CHUNK_HEADER + 1 :])
    return chunk


def _read_canvas(data: bytes, kind: bytes, part: slice) -> tuple[int, int]:
    """Return the size of the canvas from the first chunk."""
    start = part.start + _CHUNK_HEADER
    content = data[start : min(start + _MAX_HEADER, part.stop)]
    if kind == _EXTENDED and len(content) == _MAX_HEADER:
        return _read_size(content, 4)
    if kind == _LOSSY and content[3:6] == _LOSSY_START:
        width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        return width, height
    if kind == _LOSSLESS:
        return read_vp8l_size(content)
    raise CorruptImage("The WebP does not begin with a header. Check that the file is complete.")


def _read_size(data: bytes, start: int) -> tuple[int, int]:
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (start, start + 3))
    return width, height


def _estimate_chunk(data: bytes, kind: bytes, part: slice, size: tuple[int, int]) -> int:
    """Return the bytes that libwebp allocates for the prefix codes of lossless pixels or a compressed alpha channel."""
    start = part.start + _CHUNK_HEADER
    if kind == _LOSSLESS:
        return estimate_vp8l_bytes(memoryview(data)[start : part.stop])
    if kind == _ALPHA:
        return estimate_alpha_bytes(memoryview(data)[start : part.stop], *size)
    if kind == _FRAME:
        frame = slice(start + _FRAME_HEADER, min(part.stop, len(data)))
        size = _read_size(data, start + 6)
        return sum(_estimate_chunk(data, *chunk, size) for chunk in _find_chunks(data, frame, _IMAGE))
    return 0
