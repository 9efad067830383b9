"""Keep the first image of a TIFF, after checking that its size limits the work of decoding its strips or tiles."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from model.errors import CorruptImage, UnsupportedImage
from model.imaging.bounds import MAX_PIXELS, check_size
from model.imaging.containers.jpeg import read_jpeg
from model.imaging.containers.jpeg_work import is_baseline
from model.imaging.containers.reduced import ReducedFile
from model.imaging.containers.tiff_directory import MAX_BLOCKS, Tag, Values, read_directory, write_tiff

_UNCOMPRESSED, _JPEG = 1, 7
_SEPARATE_PLANES = 2
_BLACK_IS_ZERO, _YCBCR = 1, 6
# The samples of a pixel and the bits of a sample; supported files have fewer.
_MAX_SAMPLES, _MAX_BITS = 4_096, 64
# Enough for the tallest image in strips of eight rows. Checking a block takes 20 µs, plus 1 µs for each segment.
_MAX_JPEG_BLOCKS, _MAX_JPEG_SEGMENTS = 8_192, 16
_JPEG_GROUP = 16  # JPEG encodes groups of 8x8 or 16x16 pixels
# Tiles at the edges may extend beyond the image, but only up to this total.
_MAX_PADDED_PIXELS = 2 * MAX_PIXELS
# The offsets and lengths of more blocks would exceed the memory reserved for reading a file of this size.
_MAX_SMALL_BLOCKS, _SMALL_BLOCK_BYTES, _SMALL_RAW_TILE_BYTES = 4_096, 64, 1_024
# The Python objects that Pillow creates for each tile.
_BLOCK_OBJECT_BYTES = 600


class _Blocks(Struct, frozen=True):
    """The strips or tiles: `across` x `down` blocks of `columns` x `rows` pixels in each of `planes` planes."""

    tiled: bool
    columns: int
    rows: int
    across: int
    down: int
    planes: int
    bits_per_pixel: int

    @property
    def count(self) -> int:
        return self.across * self.down * self.planes

    @property
    def bytes(self) -> int:
        """The bytes of one unpacked block."""
        return ceil(self.columns * self.bits_per_pixel / 8) * self.rows


def reduce_tiff(data: bytes, max_pixels: int) -> ReducedFile:
    """Keep the tags and the blocks of the first image. Raises CorruptImage, UnsupportedImage, ImageTooManyPixels."""
    tags = read_directory(data)
    width, height = _first(tags, Tag.WIDTH, 0), _first(tags, Tag.HEIGHT, 0)
    if min(width, height) < 1:
        raise CorruptImage("The TIFF has no size. Check that the file is complete.")
    check_size(width, height, max_pixels)
    blocks = _describe_blocks(tags, width, height, len(data))
    if blocks.tiled:
        check_size(blocks.columns, blocks.rows, max_pixels)
    offsets, lengths = _locate_blocks(len(data), tags, blocks)
    compression = _first(tags, Tag.COMPRESSION, _UNCOMPRESSED)
    if compression == _JPEG:
        _check_jpeg_blocks(_cut(data, offsets, lengths), blocks)
    rebuilt = _rebuild(data, tags, blocks, offsets, lengths)
    return ReducedFile(rebuilt, _estimate_buffers(tags, blocks, compression))


def extract_plane(data: bytes, index: int) -> bytes:
    """Return the plane of one band as a separate grey TIFF. `data` is a reduced file with 16-bit planes."""
    tags = read_directory(data)
    blocks = _describe_blocks(tags, _first(tags, Tag.WIDTH, 0), _first(tags, Tag.HEIGHT, 0), len(data))
    offsets, lengths = _locate_blocks(len(data), tags, blocks)
    per_plane = blocks.across * blocks.down
    part = slice(index * per_plane, (index + 1) * per_plane)
    kept = {tag: values for tag, values in tags.items() if tag not in {Tag.EXTRA_SAMPLES, Tag.SAMPLE_FORMAT}}
    kept |= {Tag.SAMPLES: [1], Tag.PLANAR: [1], Tag.BITS: [blocks.bits_per_pixel], Tag.PHOTOMETRIC: [_BLACK_IS_ZERO]}
    plane = replace(blocks, planes=1)
    return _rebuild(data, kept, plane, offsets[part], lengths[part])


def _first(tags: Values, tag: Tag, default: int) -> int:
    return tags.get(tag, (default,))[0]


def _describe_blocks(tags: Values, width: int, height: int, size: int) -> _Blocks:
    tiled = Tag.TILE_WIDTH in tags or Tag.TILE_HEIGHT in tags
    columns = _first(tags, Tag.TILE_WIDTH, 0) if tiled else width
    rows = _first(tags, Tag.TILE_HEIGHT, 0) if tiled else min(height, _first(tags, Tag.ROWS_PER_STRIP, height))
    if min(columns, rows) < 1:
        raise CorruptImage("The TIFF has strips or tiles without a size. Check that the file is complete.")
    samples, bits_per_sample = _read_samples(tags)
    planes = samples if _first(tags, Tag.PLANAR, 1) == _SEPARATE_PLANES else 1
    bits = bits_per_sample * samples // planes
    blocks = _Blocks(tiled, columns, rows, ceil(width / columns), ceil(height / rows), planes, bits)
    _check_blocks(blocks, tags, size)
    return blocks


def _read_samples(tags: Values) -> tuple[int, int]:
    """Return the samples of a pixel, and the bits of a sample."""
    return max(1, _first(tags, Tag.SAMPLES, 1)), max(1, *tags.get(Tag.BITS, (1,)))


def _check_blocks(blocks: _Blocks, tags: Values, size: int) -> None:
    """Limit the number and the size of the blocks in a file of `size` bytes. Raises CorruptImage, UnsupportedImage."""
    compression = _first(tags, Tag.COMPRESSION, _UNCOMPRESSED)
    raw_tiles = blocks.tiled and compression == _UNCOMPRESSED
    smallest = _SMALL_RAW_TILE_BYTES if raw_tiles else _SMALL_BLOCK_BYTES
    most = min(MAX_BLOCKS, _MAX_SMALL_BLOCKS + size // smallest)
    if blocks.count > most:
        raise UnsupportedImage(f"The TIFF has more than {most} strips or tiles. Save it with larger ones.")
    samples, bits_per_sample = _read_samples(tags)
    if samples > _MAX_SAMPLES or bits_per_sample > _MAX_BITS:
        raise CorruptImage("The TIFF declares impossible samples. Check that the file is complete.")
    padding = _JPEG_GROUP if compression == _JPEG else 1
    padded_block = ceil(blocks.columns / padding) * ceil(blocks.rows / padding) * padding**2
    padded = padded_block * blocks.across * blocks.down
    if padded > _MAX_PADDED_PIXELS:
        raise UnsupportedImage("The TIFF's tiles or strips do not match its size. Save it with other ones.")


def _locate_blocks(size: int, tags: Values, blocks: _Blocks) -> tuple[Sequence[int], Sequence[int]]:
    """Return the offset and the length of each block. The length is 0 for a missing block: some tools omit blocks.

    The lengths must not add up to more than the file, so that bytes are not decoded repeatedly.
    """
    tile_offsets = blocks.tiled and Tag.TILE_OFFSETS in tags
    offsets = tags.get(Tag.TILE_OFFSETS if tile_offsets else Tag.STRIP_OFFSETS, ())[: blocks.count]
    if len(offsets) < blocks.count:
        raise CorruptImage("The TIFF has fewer strips or tiles than its size needs. Check that the file is complete.")
    lengths = array("Q", _find_lengths(size, tags, blocks, offsets))
    if any(offset + length > size for offset, length in zip(offsets, lengths, strict=True)):
        raise CorruptImage("The TIFF refers to data after its end. Check that the file is complete.")
    if sum(lengths) > size:
        raise UnsupportedImage(
            "The TIFF's strips or tiles share bytes: together they are larger than the file. Save the image again."
        )
    return offsets, lengths


def _cut(data: bytes, offsets: Sequence[int], lengths: Sequence[int]) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[offset : offset + length] for offset, length in zip(offsets, lengths, strict=True))


def _find_lengths(size: int, tags: Values, blocks: _Blocks, offsets: Sequence[int]) -> Iterable[int]:
    """Return the declared lengths. For uncompressed blocks, compute the lengths from the size in pixels instead."""
    if _first(tags, Tag.COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED:
        return (_count_raw_bytes(tags, blocks, index) if offset else 0 for index, offset in enumerate(offsets))
    declared = tags.get(Tag.TILE_BYTES if blocks.tiled and Tag.TILE_BYTES in tags else Tag.STRIP_BYTES, ())
    if blocks.count == 1 and (not declared or declared[0] == 0):
        return [max(0, size - offsets[0])]
    if len(declared) < blocks.count:
        raise CorruptImage("The TIFF lacks the sizes of its strips or tiles. Check that the file is complete.")
    return (max(0, length) if offset else 0 for offset, length in zip(offsets, declared, strict=False))


def _count_raw_bytes(tags: Values, blocks: _Blocks, index: int) -> int:
    """Return the bytes of an uncompressed block. The last strip has the remaining rows."""
    if blocks.tiled or (index + 1) % blocks.down:
        return blocks.bytes
    rows = _first(tags, Tag.HEIGHT, 0) - blocks.rows * (blocks.down - 1)
    return blocks.bytes // blocks.rows * rows


def _check_jpeg_blocks(contents: Iterable[memoryview], blocks: _Blocks) -> None:
    if blocks.count > _MAX_JPEG_BLOCKS:
        raise UnsupportedImage(
            f"The TIFF has more than {_MAX_JPEG_BLOCKS} strips or tiles of JPEG data. Save it with larger ones."
        )
    for content in contents:
        _check_jpeg_block(content, blocks)


def _check_jpeg_block(content: memoryview, blocks: _Blocks) -> None:
    """Raise UnsupportedImage if decoding the JPEG data would allocate or decode more than the block."""
    if not content:
        return
    structure = read_jpeg(bytes(content), _MAX_JPEG_SEGMENTS)
    frame = structure.frame
    if not is_baseline(structure):
        raise UnsupportedImage("The TIFF contains JPEG data that is not baseline. Save it with another compression.")
    if frame.width > blocks.columns or frame.height > ceil(blocks.rows / _JPEG_GROUP) * _JPEG_GROUP:
        raise UnsupportedImage(
            f"The TIFF contains JPEG data of {frame.width}x{frame.height} for a strip or tile of "
            f"{blocks.columns}x{blocks.rows}. Save the image again."
        )


def _rebuild(data: bytes, tags: Values, blocks: _Blocks, offsets: Sequence[int], lengths: Sequence[int]) -> bytes:
    """Return a TIFF with only this image, whose tags have the types and numbers of values that decoders expect."""
    replaced = {Tag.STRIP_OFFSETS, Tag.STRIP_BYTES, Tag.TILE_OFFSETS, Tag.TILE_BYTES}
    kept = {tag: values for tag, values in tags.items() if tag not in replaced}
    rows, declared = blocks.rows, lengths
    if not blocks.tiled and _first(tags, Tag.COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED:
        # Pillow creates objects for each uncompressed strip, so merge them into one, or into none if some are missing.
        rows, plane = _first(tags, Tag.HEIGHT, 0), sum(lengths) // blocks.planes if all(lengths) else 0
        declared = [plane] * blocks.planes
    if not blocks.tiled:
        kept[Tag.ROWS_PER_STRIP] = [rows]
    kept[Tag.TILE_BYTES if blocks.tiled else Tag.STRIP_BYTES] = declared
    offsets_tag = Tag.TILE_OFFSETS if blocks.tiled else Tag.STRIP_OFFSETS
    order = ">" if data.startswith(b"MM") else "<"
    return write_tiff(order, kept, offsets_tag, declared, _cut(data, offsets, lengths))


def _estimate_buffers(tags: Values, blocks: _Blocks, compression: int) -> int:
    """Return the memory for an unpacked block, and as much for its codec; more for JPEG coefficients and RGBA."""
    objects = _BLOCK_OBJECT_BYTES * (blocks.count if blocks.tiled else blocks.planes)
    if compression == _UNCOMPRESSED:
        return objects
    converted = 4 * blocks.columns * blocks.rows if _first(tags, Tag.PHOTOMETRIC, 0) == _YCBCR else 0
    return objects + blocks.bytes * (3 if compression == _JPEG else 2) + converted
