"""TIFFs and BigTIFFs of any tags, built byte by byte (TIFF 6.0, section 2)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

TEXT, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE, LONG8 = 2, 3, 4, 5, 7, 12, 16
_CODES = {
    1: "B",
    TEXT: "B",
    SHORT: "H",
    LONG: "I",
    RATIONAL: "II",
    UNDEFINED: "B",
    DOUBLE: "d",
    13: "I",
    LONG8: "Q",
    17: "q",
}

Tags = Mapping[int, tuple[int, Sequence[float]]]
"""Type and values by tag."""


def describe_strips(
    size: tuple[int, int], compression: int, offsets: Sequence[int], lengths: Sequence[int], rows: int
) -> dict[int, tuple[int, Sequence[int]]]:
    """Return the tags of an 8-bit grey image in strips."""
    return {
        256: (LONG, [size[0]]),
        257: (LONG, [size[1]]),
        258: (SHORT, [8]),
        259: (SHORT, [compression]),
        262: (SHORT, [1]),
        273: (LONG, offsets),
        277: (SHORT, [1]),
        278: (LONG, [rows]),
        279: (LONG, lengths),
    }


def make_tiff(tags: Tags, content: bytes = b"", *, order: str = "<", big: bool = False, following: int = 0) -> bytes:
    """Build a TIFF: the header, `content` at offset 8 (16 in a BigTIFF), then the directory and its values."""
    width, offset = (8, "Q") if big else (4, "I")
    start = (16 if big else 8) + len(content)
    after = start + (8 if big else 2) + (20 if big else 12) * len(tags) + width
    directory = spill = b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{_CODES[kind][0]}", *values)
        count = len(packed) // struct.calcsize("=" + _CODES[kind])
        directory += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count)
        is_inline = len(packed) <= width
        directory += packed.ljust(width, b"\0") if is_inline else struct.pack(order + offset, after + len(spill))
        spill += b"" if is_inline else packed
    prefix = b"II" if order == "<" else b"MM"
    header = struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HI", 42, start)
    number = struct.pack(order + ("Q" if big else "H"), len(tags))
    return prefix + header + content + number + directory + struct.pack(order + offset, following) + spill
