"""WebPs built chunk by chunk, and lossless bitstreams whose prefix codes take much memory (RFC 9649)."""

from __future__ import annotations

import struct

_CODE_LENGTH_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8)
_ZEROS = 18


class BitWriter:
    """Collects numbers, least significant bit first."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def put(self, value: int, count: int) -> None:
        self._bits.append(f"{value:0{count}b}"[::-1] if count else "")

    def put_code(self, code: int, length: int) -> None:
        """Append a prefix code, most significant bit first."""
        self._bits.append(f"{code:0{length}b}")

    def finish(self) -> bytes:
        bits = "".join(self._bits)
        return bytes(int(bits[start : start + 8][::-1], 2) for start in range(0, len(bits), 8))


def make_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def make_webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pack_size(width: int, height: int) -> bytes:
    return struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]


def make_extended_header(flags: int, width: int, height: int) -> bytes:
    return make_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + pack_size(width, height))


def make_frame(width: int, height: int, *chunks: bytes) -> bytes:
    """Make an animation's frame in the corner of the canvas."""
    return make_chunk(b"ANMF", bytes(6) + pack_size(width, height) + bytes(4) + b"".join(chunks))


def make_grouped_pixels(width: int, height: int, groups: int, *, with_header: bool = True) -> bytes:
    """Make a lossless bitstream of black pixels; each 4x4 block has one of `groups` groups of prefix codes."""
    bits = BitWriter()
    if with_header:
        bits.put(0x2F, 8)
        bits.put(width - 1, 14)
        bits.put(height - 1, 14)
        bits.put(0, 4)
    for value, count in ((0, 1), (0, 1), (1, 1), (0, 3), (0, 1)):  # no transform or cache, entropy image of 4x4 blocks
        bits.put(value, count)
    for alphabet in (256 + 24, 256):  # green and red have the group's number
        _put_full_code(bits, alphabet)
    for _ in range(3):
        _put_zero_code(bits)
    for block in range((width + 3) // 4 * ((height + 3) // 4)):
        group = block % groups
        bits.put_code(group & 255, 8)
        bits.put_code(group >> 8, 8)
    for _ in range(5 * groups):
        _put_zero_code(bits)
    return bits.finish()


def _put_zero_code(bits: BitWriter) -> None:
    """Append a code of symbol 0 alone."""
    bits.put(1, 4)


def _put_full_code(bits: BitWriter, alphabet: int) -> None:
    """Append a code in which the symbols below 256 have 8 bits and the others none."""
    bits.put(0, 1)
    bits.put(len(_CODE_LENGTH_ORDER) - 4, 4)
    for symbol in _CODE_LENGTH_ORDER:
        bits.put(int(symbol in (8, _ZEROS)), 3)
    bits.put(0, 1)
    for _ in range(256):
        bits.put(0, 1)
    if alphabet > 256:
        bits.put(1, 1)
        bits.put(alphabet - 256 - 11, 7)
