"""Estimate the cost of decoding a JPEG from its frame and scans, and keep only the segments that decoding needs."""

from __future__ import annotations

from collections.abc import Mapping

from model.errors import UnsupportedImage
from model.imaging.bounds import check_size
from model.imaging.containers.jpeg import (
    ARITHMETIC,
    LOSSLESS,
    PROGRESSIVE,
    SEQUENTIAL_HUFFMAN,
    START,
    Frame,
    JpegStructure,
    Scan,
    read_jpeg,
)
from model.imaging.containers.reduced import ReducedFile

MAX_SCANS = 50
# A unit of work is a Huffman-coded block in one scan, about 50 ns on a processor of 2020. 50 megapixels without chroma
# subsampling need 11 million units with the scans of libjpeg-turbo and 17 million with those of mozjpeg.
MAX_WORK = 30_000_000
# Arithmetic decoding takes time for each coefficient, no matter how few bytes encode it, and for each byte.
_ARITHMETIC_COEFFICIENTS_PER_UNIT = 8
_ARITHMETIC_UNITS_PER_BYTE = 2
_LOSSLESS_UNITS_PER_BLOCK = 12
# Decoders parse all tables before the first scan. A JPEG can use 3 KB of them, and a thumbnail takes up to 64 KB.
MAX_TABLE_BYTES = 100_000
_COEFFICIENT_BYTES_PER_BLOCK = 128


def reduce_jpeg(data: bytes, max_pixels: int) -> ReducedFile:
    """Keep the tables, the frame and the scans. Raises CorruptImage, UnsupportedImage, ImageTooManyPixels."""
    return reduce_to_structure(data, read_jpeg(data), max_pixels)


def reduce_to_structure(data: bytes, structure: JpegStructure, max_pixels: int) -> ReducedFile:
    """Do the same as `reduce_jpeg`, given the structure that `read_jpeg` returned for the data."""
    check_size(structure.frame.width, structure.frame.height, max_pixels)
    _check_work(structure, len(data))
    buffered = _COEFFICIENT_BYTES_PER_BLOCK * structure.frame.blocks if _keeps_coefficients(structure) else 0
    if len(START) + structure.table_bytes == structure.first_scan:
        return ReducedFile(data, buffered)
    view = memoryview(data)
    segments = [view[part] for part in structure.segments]
    return ReducedFile(b"".join([START, *segments, view[structure.first_scan :]]), buffered)


def is_baseline(structure: JpegStructure) -> bool:
    """Whether the data is sequential, Huffman-coded, and has at most one scan for each component."""
    frame = structure.frame
    return frame.marker in SEQUENTIAL_HUFFMAN and len(structure.scans) <= len(frame.components)


def _check_work(structure: JpegStructure, length: int) -> None:
    """Limit the number of passes over the blocks: 14 bytes are enough to declare another scan over all of them."""
    if len(structure.scans) > MAX_SCANS:
        raise UnsupportedImage(f"The JPEG has more than {MAX_SCANS} scans. Save a baseline JPEG.")
    blocks = _count_blocks(structure.frame)
    work = sum(_estimate_units(structure.frame.marker, blocks, scan) for scan in structure.scans)
    if structure.frame.marker in ARITHMETIC:
        work += _ARITHMETIC_UNITS_PER_BYTE * length
    if work > MAX_WORK:
        raise UnsupportedImage(
            f"The JPEG takes too long to decode: {len(structure.scans)} scans. Save a baseline JPEG, or scale it down."
        )
    if structure.table_bytes > MAX_TABLE_BYTES:
        raise UnsupportedImage(f"The JPEG has more than {MAX_TABLE_BYTES} bytes of tables. Save a baseline JPEG.")


def _count_blocks(frame: Frame) -> dict[int, int]:
    """Return the number of blocks by component; the largest if components share an identifier."""
    blocks: dict[int, int] = {}
    for component in frame.components:
        blocks[component.identifier] = max(component.blocks, blocks.get(component.identifier, 0))
    return blocks


def _estimate_units(marker: int, blocks_of: Mapping[int, int], scan: Scan) -> int:
    blocks = sum(blocks_of.get(identifier, 0) for identifier in scan.components)
    if marker in ARITHMETIC:
        coefficients = scan.coefficients if marker in PROGRESSIVE else 64
        return blocks + blocks * coefficients // _ARITHMETIC_COEFFICIENTS_PER_UNIT
    return blocks * _LOSSLESS_UNITS_PER_BLOCK if marker == LOSSLESS else blocks


def _keeps_coefficients(structure: JpegStructure) -> bool:
    """Whether libjpeg buffers all coefficients: the JPEG is progressive, or its first scan lacks some components."""
    frame = structure.frame
    return frame.marker in PROGRESSIVE or len(structure.scans[0].components) < len(frame.components)
