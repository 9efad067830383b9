"""Estimate the memory to decode a lossless WebP bitstream (RFC 9649, section 3) from the data before its pixels.

The main image may have 65,536 groups of prefix codes, 12 KB each in the decoder and 3 bytes each in the file. The
entropy image, which follows the images of the transforms, determines their number.
"""

from __future__ import annotations

from math import ceil

from model.errors import CorruptImage, UnsupportedImage
from model.imaging.containers.prefix_codes import BitReader, PrefixCode, read_prefix_code

# libwebp's encoder writes the images of transforms with at most 16,384 pixels, most of which repeat earlier ones.
MAX_SYMBOLS = 65_536
# Its entropy images have at most 2,600 blocks, and fewer groups.
MAX_GROUPS = 10_000
_SIGNATURE = 0x2F
_PREDICTOR, _CROSS_COLOUR, _SUBTRACT_GREEN, _COLOUR_INDEXING = range(4)
_LITERALS, _LENGTHS, _DISTANCES = 256, 24, 40
# The number of table entries of 4 bytes that libwebp keeps for a group of five codes, by the bits of the colour cache.
_TABLE_ENTRIES = (2954, 2956, 2958, 2962, 2970, 2986, 3018, 3082, 3212, 3468, 3980, 5004)
_ENTRY_BYTES, _GROUP_BYTES = 4, 600
# libwebp renumbers the groups if the highest number implies more groups than this.
_RENUMBERED = 1_000


def read_vp8l_size(data: bytes | memoryview) -> tuple[int, int]:
    """Return width and height from the header of a bitstream. Raises CorruptImage."""
    return _read_header(BitReader(data))


def estimate_vp8l_bytes(data: bytes | memoryview) -> int:
    """Return the bytes for the prefix codes of a bitstream with a header. Raises CorruptImage, UnsupportedImage."""
    bits = BitReader(data)
    return _estimate(bits, *_read_header(bits))


def estimate_alpha_bytes(data: bytes | memoryview, width: int, height: int) -> int:
    """Return the bytes for the prefix codes of an alpha channel, whose bitstream has no header; 0 if uncompressed.

    `data` is the chunk's content. Raises CorruptImage, UnsupportedImage.
    """
    is_compressed = len(data) > 1 and data[0] & 3 == 1
    return _estimate(BitReader(data[1:]), width, height) if is_compressed else 0


def _read_header(bits: BitReader) -> tuple[int, int]:
    if bits.read(8) != _SIGNATURE:
        raise CorruptImage("The WebP has no lossless pixels. Check that the file is complete.")
    width, height = bits.read(14) + 1, bits.read(14) + 1
    bits.skip(4)  # whether alpha is used, and the version
    return width, height


def _estimate(bits: BitReader, width: int, height: int) -> int:
    width = _skip_transforms(bits, width, height)
    cache_bits = _read_cache_bits(bits)
    groups = 1
    if bits.read(1):
        size_bits = bits.read(3) + 2
        groups = _count_groups(_read_image(bits, width, height, size_bits))
    if groups > MAX_GROUPS:
        raise UnsupportedImage(f"The WebP has {groups} groups of prefix codes. Save it with default settings.")
    return groups * (_TABLE_ENTRIES[cache_bits] * _ENTRY_BYTES + _GROUP_BYTES)


def _count_groups(numbers: set[int]) -> int:
    highest = max(numbers, default=0) + 1
    return highest if highest <= _RENUMBERED else len(numbers | {0})


def _skip_transforms(bits: BitReader, width: int, height: int) -> int:
    """Read the transforms and their images. Returns the width of the main image, which packs indexed pixels."""
    seen: set[int] = set()
    while bits.read(1):
        kind = bits.read(2)
        if kind in seen:
            raise CorruptImage("The WebP repeats a transform. Save the image again.")
        seen.add(kind)
        if kind in (_PREDICTOR, _CROSS_COLOUR):
            _read_image(bits, width, height, bits.read(3) + 2)
        elif kind == _COLOUR_INDEXING:
            colours = bits.read(8) + 1
            _read_image(bits, colours, 1, 0)
            width = ceil(width / (8 if colours <= 2 else 4 if colours <= 4 else 2 if colours <= 16 else 1))
    return width


def _read_cache_bits(bits: BitReader) -> int:
    cache_bits = bits.read(4) if bits.read(1) else 0
    if cache_bits >= len(_TABLE_ENTRIES):
        raise CorruptImage("The WebP has a colour cache of an invalid size. Save the image again.")
    return cache_bits


def _read_image(bits: BitReader, width: int, height: int, size_bits: int) -> set[int]:
    """Read an entropy-coded image with one pixel for each block. Returns the numbers that red and green encode."""
    cache_bits = _read_cache_bits(bits)
    green = read_prefix_code(bits, _LITERALS + _LENGTHS + (1 << cache_bits if cache_bits else 0))
    red, blue, alpha = (read_prefix_code(bits, _LITERALS) for _ in range(3))
    distance = read_prefix_code(bits, _DISTANCES)
    missing = ceil(width / (1 << size_bits)) * ceil(height / (1 << size_bits))
    if all(code.only_symbol is not None for code in (green, red, blue, alpha)) and green.read(bits) < _LITERALS:
        return {red.read(bits) << 8 | green.read(bits)}
    return _read_pixels(bits, missing, (green, red, blue, alpha, distance))


def _read_pixels(bits: BitReader, missing: int, codes: tuple[PrefixCode, ...]) -> set[int]:
    green, red, blue, alpha, distance = codes
    numbers: set[int] = set()
    for _ in range(MAX_SYMBOLS):
        if missing <= 0:
            return numbers
        symbol = green.read(bits)
        missing -= 1
        if symbol < _LITERALS:
            numbers.add(red.read(bits) << 8 | symbol)
            blue.read(bits)
            alpha.read(bits)
        elif symbol < _LITERALS + _LENGTHS:
            missing -= _read_extra(bits, symbol - _LITERALS) - 1
            _read_extra(bits, distance.read(bits))
    raise UnsupportedImage("The WebP's lossless transforms are too detailed. Save it with default settings.")


def _read_extra(bits: BitReader, prefix: int) -> int:
    """Return the number that a prefix and the extra bits after it encode."""
    if prefix < 4:
        return prefix + 1
    extra = (prefix - 2) >> 1
    return ((2 + (prefix & 1)) << extra) + bits.read(extra) + 1
