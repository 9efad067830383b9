"""JPEG data built segment by segment (ITU-T T.81, annex B)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

BASELINE, PROGRESSIVE, LOSSLESS, ARITHMETIC, ARITHMETIC_PROGRESSIVE = 0xC0, 0xC2, 0xC3, 0xC9, 0xCA
_TABLES, _QUANTISATION, _SCAN, _RESTART = 0xC4, 0xDB, 0xDA, 0xDD


def make_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def make_tables() -> bytes:
    """Make a quantisation table of ones, and Huffman tables in which one bit ends a block."""
    huffman = b"".join(make_segment(_TABLES, bytes([kind, 1]) + bytes(15) + b"\0") for kind in (0x00, 0x10))
    return make_segment(_QUANTISATION, b"\0" + b"\1" * 64) + huffman


def make_frame(process: int, width: int, height: int, samplings: Sequence[int] = (0x11,), bits: int = 8) -> bytes:
    """Make a frame header with one component for each of `samplings`, such as 0x22."""
    components = b"".join(bytes([index, sampling, 0]) for index, sampling in enumerate(samplings, start=1))
    return make_segment(process, struct.pack(">BHHB", bits, height, width, len(samplings)) + components)


def make_scan(
    components: Sequence[int] = (1,), band: tuple[int, int] = (0, 63), precision: int = 0, content: bytes = b""
) -> bytes:
    """Make a scan of the coefficients in `band`. `precision` has the bits of Ah and Al."""
    selectors = b"".join(bytes([component, 0]) for component in components)
    return make_segment(_SCAN, bytes([len(components)]) + selectors + bytes([*band, precision])) + content


def make_restart_interval(groups: int) -> bytes:
    return make_segment(_RESTART, struct.pack(">H", groups))


def make_jpeg(*parts: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"
