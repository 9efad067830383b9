"""Read and write the directory of a TIFF (TIFF 6.0, section 2, and BigTIFF): the tags that determine its pixels."""

from __future__ import annotations

import io
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum

from msgspec import Struct
from msgspec.structs import replace

from model.errors import CorruptImage, UnsupportedImage

MAX_TAGS = 4_096
# Without this limit, a 4 MB file that declares a million strips takes 280 MB and ten seconds to open.
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


# The maximum number of values of a tag. All others have one value; further values are ignored.
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
# The characters of `struct` and `array` by TIFF type; a rational is two numbers.
_TYPES = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_UNDEFINED, _SHORT, _LONG, _RATIONAL = 7, 3, 4, 5
_SHORT_TAGS = (Tag.BITS, Tag.COMPRESSION, Tag.PHOTOMETRIC, Tag.COLOUR_MAP)
_RATIONAL_TAGS = (Tag.YCBCR_COEFFICIENTS, Tag.REFERENCE_BLACK_WHITE)

_TAGS = frozenset(Tag)

Values = Mapping[int, Sequence[int]]
"""Numbers by tag. In a rational tag, numerators and denominators alternate."""


class _Layout(Struct, frozen=True):
    """How a file encodes numbers: the byte order for `struct`, and the types, which differ in BigTIFF."""

    order: str
    first_directory: int
    count: str
    entry: str
    offset: str

    def unpack(self, code: str, data: bytes, start: int) -> tuple[int, ...]:
        """Unpack numbers in the file's byte order. Raises CorruptImage if the data ends too early."""
        try:
            return struct.unpack_from(self.order + code, data, start)
        except (struct.error, OverflowError) as error:
            raise CorruptImage("The TIFF refers to data after its end. Check that the file is complete.") from error


class Entry(Struct, frozen=True):
    """A directory entry with `number` values of the type `kind`. `end` is the offset after the entry."""

    tag: int
    kind: int
    number: int
    end: int
    layout: _Layout

    def locate(self, data: bytes, size: int) -> int:
        """Return the offset of the values, of `size` bytes each. If they fit, they are in the entry itself.

        Raises CorruptImage.
        """
        width = struct.calcsize(self.layout.offset)
        start = self.end - width
        return start if self.number * size <= width else self.layout.unpack(self.layout.offset, data, start)[0]


def read_entries(data: bytes) -> Iterator[Entry]:
    """Yield the entries of the first directory. Raises CorruptImage, UnsupportedImage."""
    layout = _read_layout(data)
    count = layout.unpack(layout.count, data, layout.first_directory)[0]
    if count > MAX_TAGS:
        raise UnsupportedImage(f"The TIFF has more than {MAX_TAGS} tags. Save it without metadata.")
    start, size = layout.first_directory + struct.calcsize(layout.count), struct.calcsize("=" + layout.entry)
    for position in range(start, start + count * size, size):
        tag, kind, number = layout.unpack(layout.entry, data, position)[:3]
        yield Entry(tag, kind, number, position + size, layout)


def read_directory(data: bytes) -> dict[int, Sequence[int]]:
    """Read the first directory. The first entry of a tag is used. Raises CorruptImage, UnsupportedImage."""
    values: dict[int, Sequence[int]] = {}
    for entry in read_entries(data):
        if entry.tag in _TAGS and entry.tag not in values and entry.kind in _TYPES and entry.number:
            values[entry.tag] = _read_values(data, entry)
    return values


def _read_layout(data: bytes) -> _Layout:
    order = "<" if data.startswith(b"II") else ">"
    is_big = 43 in data[2:4]
    layout = _Layout(order, 8, "Q", "HHQQ", "Q") if is_big else _Layout(order, 4, "H", "HHII", "I")
    return replace(layout, first_directory=layout.unpack(layout.offset, data, layout.first_directory)[0])


def _read_values(data: bytes, entry: Entry) -> Sequence[int]:
    limit = _MAX_VALUES.get(Tag(entry.tag), 1)
    if entry.number > limit > 1:
        raise UnsupportedImage(
            f"The TIFF tag {entry.tag} has {entry.number} values; the limit is {limit}. "
            "Save it with larger strips or tiles."
        )
    size = struct.calcsize("=" + _TYPES[entry.kind])
    start, length = entry.locate(data, size), size * min(entry.number, limit)
    if start + length > len(data):
        raise CorruptImage("The TIFF refers to data after its end. Check that the file is complete.")
    return _in_order(array(_TYPES[entry.kind][0], data[start : start + length]), entry.layout.order)


def _in_order(numbers: array[int], order: str) -> array[int]:
    """Convert numbers to or from `order` in place. An array takes a fifth of a tuple's memory."""
    if (order == "<") != (sys.byteorder == "little"):
        numbers.byteswap()
    return numbers


def write_tiff(
    order: str, values: Values, offsets_tag: Tag, lengths: Sequence[int], blocks: Iterable[memoryview]
) -> bytes:
    """Return a TIFF with one directory of `values`, and `blocks` of pixels, which have `lengths` bytes.

    `order` is "<" or ">". `offsets_tag` is set to the offsets of the blocks; the offset of an empty block is 0.
    """
    packed = {tag: _pack(order, tag, numbers) for tag, numbers in values.items()}
    packed[offsets_tag] = _LONG, bytes(4 * len(lengths))
    after = 8 + 2 + 12 * len(packed) + 4
    pixels = after + sum(len(content) for _, content in packed.values() if len(content) > 4)
    packed[offsets_tag] = _LONG, _in_order(array("I", _find_offsets(pixels, lengths)), order).tobytes()
    file = io.BytesIO()
    file.write((b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(packed)))
    spilled = after
    for tag, (kind, content) in sorted(packed.items()):
        number = len(content) // struct.calcsize("=" + _TYPES[kind])
        file.write(struct.pack(order + "HHI", tag, kind, number))
        is_inline = len(content) <= 4
        file.write(content.ljust(4, b"\0") if is_inline else struct.pack(order + "I", spilled))
        spilled += 0 if is_inline else len(content)
    file.write(bytes(4))
    file.writelines(content for _, (_, content) in sorted(packed.items()) if len(content) > 4)
    file.writelines(blocks)
    return file.getvalue()


def _find_offsets(start: int, lengths: Iterable[int]) -> Iterator[int]:
    for length in lengths:
        yield start if length else 0
        start += length


def _pack(order: str, tag: int, numbers: Sequence[int]) -> tuple[int, bytes]:
    """Return the type and the bytes of a tag's values."""
    if tag == Tag.JPEG_TABLES:
        return _UNDEFINED, bytes(number & 0xFF for number in numbers)
    kind = _LONG
    if tag in _RATIONAL_TAGS:
        kind = _RATIONAL
    elif tag in _SHORT_TAGS or (len(numbers) < 3 and max(numbers) < 1 << 16):
        kind = _SHORT
    code, largest = (_TYPES[kind][0], (1 << (16 if kind == _SHORT else 32)) - 1)
    return kind, _in_order(array(code, (min(max(number, 0), largest) for number in numbers)), order).tobytes()
