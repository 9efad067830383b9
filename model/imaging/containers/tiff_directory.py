"""Read and write the directory of a TIFF (TIFF 6.0, section 2, and BigTIFF): the tags that determine its pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from model.errors import CorruptImage, UnsupportedImage

MAX_TAGS = 4_096
# A 4 MB file that declares a million strips took 280 MB and ten seconds to open.
MAX_BLOCKS = 32_768


class Tag(IntEnum):
    """The tags that influence pixels. All others are dropped."""

    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    PLANAR = 284
    FAX3_OPTIONS = 292
    FAX4_OPTIONS = 293
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    INK_SET = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    YCBCR_COEFFICIENTS = 529
    YCBCR_SUBSAMPLING = 530
    YCBCR_POSITIONING = 531
    REFERENCE_BLACK_WHITE = 532


# How many values a tag may have; 1 for all others, whose further values are ignored.
_MAX_VALUES = {
    Tag.BITS: 4_096,
    Tag.EXTRA_SAMPLES: 4_096,
    Tag.SAMPLE_FORMAT: 4_096,
    Tag.STRIP_OFFSETS: MAX_BLOCKS,
    Tag.STRIP_BYTES: MAX_BLOCKS,
    Tag.TILE_OFFSETS: MAX_BLOCKS,
    Tag.TILE_BYTES: MAX_BLOCKS,
    Tag.COLOUR_MAP: 3 * 4_096,
    Tag.JPEG_TABLES: 65_536,
    Tag.YCBCR_COEFFICIENTS: 3,
    Tag.YCBCR_SUBSAMPLING: 2,
    Tag.REFERENCE_BLACK_WHITE: 6,
}
# The characters of `struct` by TIFF type; a rational is two numbers.
_TYPES = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_UNDEFINED, _SHORT, _LONG, _RATIONAL = 7, 3, 4, 5
_RATIONAL_TAGS = (Tag.YCBCR_COEFFICIENTS, Tag.REFERENCE_BLACK_WHITE)

_TAGS = frozenset(Tag)

Values = Mapping[int, tuple[int, ...]]
"""Numbers by tag; numerators and denominators alternate in a rational tag."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a file codes numbers: `order` is that of `struct`, the others differ between TIFF and BigTIFF."""

    order: str
    first_directory: int
    count: str
    entry: str
    offset: str

    def unpack(self, code: str, data: bytes, start: int) -> tuple[int, ...]:
        """Raises CorruptImage beyond the end of the file."""
        try:
            return struct.unpack_from(self.order + code, data, start)
        except (struct.error, OverflowError) as error:
            raise CorruptImage("The TIFF refers to data after its end. Check that the file is complete.") from error


def read_directory(data: bytes) -> dict[int, tuple[int, ...]]:
    """Read the first directory. The first entry of a tag counts. Raises CorruptImage, UnsupportedImage."""
    layout = _read_layout(data)
    count = layout.unpack(layout.count, data, layout.first_directory)[0]
    if count > MAX_TAGS:
        raise UnsupportedImage(f"The TIFF has more than {MAX_TAGS} tags. Save it without metadata.")
    values: dict[int, tuple[int, ...]] = {}
    start, size = layout.first_directory + struct.calcsize(layout.count), struct.calcsize("=" + layout.entry)
    for position in range(start, start + count * size, size):
        tag, kind, number = layout.unpack(layout.entry, data, position)[:3]
        if tag in _TAGS and tag not in values and kind in _TYPES and number:
            values[tag] = _read_values(data, layout, Tag(tag), kind, number, position + size)
    return values


def _read_layout(data: bytes) -> _Layout:
    order = "<" if data.startswith(b"II") else ">"
    is_big = 43 in data[2:4]
    layout = _Layout(order, 8, "Q", "HHQQ", "Q") if is_big else _Layout(order, 4, "H", "HHII", "I")
    return replace(layout, first_directory=layout.unpack(layout.offset, data, layout.first_directory)[0])


def _read_values(data: bytes, layout: _Layout, tag: Tag, kind: int, number: int, end: int) -> tuple[int, ...]:
    """Read the values of an entry that ends at `end`, where values that fit are stored themselves."""
    limit = _MAX_VALUES.get(tag, 1)
    if number > limit > 1:
        raise UnsupportedImage(
            f"The TIFF has {number} numbers of kind {tag}; the limit is {limit}. Save it with larger strips or tiles."
        )
    width = struct.calcsize(layout.offset)
    start = end - width
    if number * struct.calcsize("=" + _TYPES[kind]) > width:
        start = layout.unpack(layout.offset, data, start)[0]
    return layout.unpack(_TYPES[kind] * min(number, limit), data, start)


def write_tiff(big_endian: bool, values: Values, offsets_tag: Tag, blocks: Sequence[memoryview]) -> bytes:
    """A TIFF of one directory with these values and blocks of pixels. `offsets_tag` gets the offsets of the blocks."""
    order = ">" if big_endian else "<"
    numbers = {**values, offsets_tag: (0,) * len(blocks)}
    after = 8 + 2 + 12 * len(numbers) + 4
    spilled = sum(size for tag in numbers if (size := len(_pack(order, tag, numbers[tag])[1])) > 4)
    numbers[offsets_tag] = tuple(_offsets(after + spilled, blocks))
    directory = spill = b""
    for tag in sorted(numbers):
        kind, packed = _pack(order, tag, numbers[tag])
        number = len(packed) // struct.calcsize("=" + _TYPES[kind])
        directory += struct.pack(order + "HHI", tag, kind, number)
        directory += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", after + len(spill))
        spill += packed if len(packed) > 4 else b""
    start = (b"MM" if big_endian else b"II") + struct.pack(order + "HIH", 42, 8, len(numbers))
    return b"".join([start, directory, bytes(4), spill, *blocks])


def _offsets(start: int, blocks: Sequence[memoryview]) -> Iterator[int]:
    """The offset of each block; 0 for an empty one, which the file lacks."""
    for block in blocks:
        yield start if block else 0
        start += len(block)


def _pack(order: str, tag: int, numbers: Sequence[int]) -> tuple[int, bytes]:
    """The type and the bytes of values. Offsets and sizes of blocks are LONG, whatever their values are."""
    if tag == Tag.JPEG_TABLES:
        return _UNDEFINED, bytes(number & 0xFF for number in numbers)
    if tag in _RATIONAL_TAGS:
        return _RATIONAL, struct.pack(f"{order}{len(numbers)}I", *(number & 0xFFFFFFFF for number in numbers))
    if tag in (Tag.BITS, Tag.COMPRESSION, Tag.PHOTOMETRIC, Tag.COLOUR_MAP) or (
        len(numbers) < 3 and max(numbers) < 65_536
    ):
        return _SHORT, struct.pack(f"{order}{len(numbers)}H", *(min(max(number, 0), 65_535) for number in numbers))
    return _LONG, struct.pack(f"{order}{len(numbers)}I", *(min(max(number, 0), 2**32 - 1) for number in numbers))
