"""PNGs built chunk by chunk (W3C PNG, section 11)."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def make_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def make_header(width: int, height: int, depth: int, colour: int, *, interlaced: bool = False) -> bytes:
    return make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def make_png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + make_chunk(b"IEND", b"")


def compress_bomb(length: int) -> bytes:
    """Compress `length` zeros, to a thousandth of their size."""
    return zlib.compress(bytes(length), 9)


def make_white_png() -> bytes:
    """Make the image whose prediction never ends with the back end `stub://?hang=white`."""
    encoded = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(encoded, "PNG")
    return encoded.getvalue()
