"""Convert 16-bit samples to 8-bit ones, scaled from the range that the image uses.

Pillow keeps only the high bytes of colours. If they are small, the image is decoded again to get the low bytes. All
work is done in blocks of a few thousand pixels, because copies of the whole image would need more memory.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from model.imaging.containers.tiff import extract_plane
from model.imaging.png_keys import match_sixteen_bit_colour
from model.imaging.sample_range import FULL_RANGE, RangeHints, SampleRange, find_alpha_range, find_range
from model.imaging.samples import get_raw_mode
from model.imaging.tiff_layouts import TiffLayout, prepare_layout

_Box = tuple[int, int, int, int]
# Reads the 16-bit samples in a box, uint16 [height, width] or [height, width, bands].
_ReadBox = Callable[[_Box], NDArray[np.uint16]]
_BLOCK_COLUMNS, _BLOCK_PIXELS = 4_096, 16_384
_COLOURS = 3
# The raw mode of grey and alpha in a PNG.
_GREY_AND_ALPHA = "LA;16B"
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
# In samples of a lower depth that were shifted to the high bits, these bits are 0.
_LOW_BITS = 0x000F


def convert_sixteen_bits(image: Image.Image, data: bytes, hints: RangeHints) -> tuple[Image.Image, SampleRange]:
    """Return the opened `image` of the file `data` with 8-bit samples, and the range from which they were scaled.

    CMYK and premultiplied colours, which sensors do not produce, always use the full range.
    """
    key = image.info.get("transparency") if image.format == "PNG" else None
    if image.mode.startswith("I;16"):
        return _convert_grey(image, key, hints if key is None else replace(hints, nodata=key))
    raw_mode = get_raw_mode(image)
    image.load()
    if image.mode == "CMYK" or raw_mode.startswith("RGBa"):
        return image, FULL_RANGE
    used = find_range(_count_high_bytes(image), hints)
    if used == FULL_RANGE and key is None:
        return image, FULL_RANGE
    return _convert_colours(image, data, raw_mode, key, used)


def _convert_grey(image: Image.Image, key: int | None, hints: RangeHints) -> tuple[Image.Image, SampleRange]:
    """Convert grey, of which Pillow keeps both bytes. Samples that equal the transparent `key` get an alpha of 0."""
    image.load()

    def read_box(box: _Box) -> NDArray[np.uint16]:
        return np.asarray(image.crop(box))

    boxes = list(_list_boxes(image.size))
    counts = sum(np.bincount((read_box(box) >> 8).ravel(), minlength=256) for box in boxes)
    used = find_range(np.asarray(counts, np.int64), hints)
    if used != FULL_RANGE and _uses_high_bits_only(map(read_box, boxes)):
        used = FULL_RANGE
    table = used.make_table()
    grey = Image.new("L", image.size)
    for box in boxes:
        grey.paste(Image.fromarray(table[read_box(box)]), box)
    if key is None:
        return grey, used
    alpha = Image.new("L", image.size)
    for box in boxes:
        alpha.paste(Image.fromarray(np.where(read_box(box) == key, np.uint8(0), np.uint8(255))), box)
    return Image.merge("LA", (grey, alpha)), used


def _convert_colours(
    image: Image.Image, data: bytes, raw_mode: str, key: tuple[int, ...] | None, used: SampleRange
) -> tuple[Image.Image, SampleRange]:
    """Scale the loaded `image` of high bytes in place."""
    low, read_box = _open_samples(image, data, raw_mode)
    alpha = match_sixteen_bit_colour(image, low, key) if key is not None and low is not None else None
    boxes = list(_list_boxes(image.size))
    if used != FULL_RANGE and _uses_high_bits_only(read_box(box)[..., :_COLOURS] for box in boxes):
        used = FULL_RANGE
    if used != FULL_RANGE:
        table, alpha_table = used.make_table(), _get_alpha_range(image, used).make_table()
        for box in boxes:
            samples = read_box(box)
            scaled = table[samples]
            scaled[..., _COLOURS:] = alpha_table[samples[..., _COLOURS:]]
            height, width = scaled.shape[:2]
            image.paste(Image.frombytes(image.mode, (width, height), scaled.tobytes()), box)
    if alpha is not None:
        # Add the alpha in place, which takes less memory than a copy.
        del image.info["transparency"]
        image.putalpha(alpha)
    return image, used


def _open_samples(image: Image.Image, data: bytes, raw_mode: str) -> tuple[Image.Image | None, _ReadBox]:
    """Return the image of low bytes, if there is one, and a function that reads 16-bit samples."""
    if isinstance(image, TiffImageFile) and TiffLayout.from_tags(image.tag_v2).has_compressed_planes:
        planes = [_load_plane(data, index) for index in range(len(image.getbands()))]
        return None, lambda box: np.stack([np.asarray(plane.crop(box)) for plane in planes], axis=-1)
    low = _load_low_bytes(str(image.format), data)
    if raw_mode == _GREY_AND_ALPHA:
        return None, lambda box: _join_grey_and_alpha(np.asarray(low.crop(box)))
    return low, lambda box: _join(np.asarray(image.crop(box)), np.asarray(low.crop(box)))


def _load_low_bytes(name: str, data: bytes) -> Image.Image:
    """Decode the file again with the other byte order, so that Pillow keeps the low byte of each sample."""
    with Image.open(io.BytesIO(data), formats=[name]) as low:
        if isinstance(low, TiffImageFile):
            prepare_layout(low)
        low.tile = [tile._replace(args=_exchange_order(tile.args)) for tile in low.tile]
        low.load()
        return low


def _load_plane(data: bytes, index: int) -> Image.Image:
    """Decode a plane as a grey image, because planes decoded by libtiff lose their low bytes with any raw mode."""
    with Image.open(io.BytesIO(extract_plane(data, index)), formats=["TIFF"]) as plane:
        plane.load()
        return plane


def _exchange_order(args: Any) -> Any:
    """Return the decoder's arguments with the other byte order in the raw mode, which is the first or only argument.

    Grey and alpha get the raw mode "RGBA" instead: four bands with the high and the low byte of each.
    """
    if isinstance(args, tuple):
        return (_exchange_order(args[0]), *args[1:])
    return "RGBA" if args == _GREY_AND_ALPHA else args[:-1] + _OTHER_ORDER[args[-1]]


def _join(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return np.left_shift(high, 8, dtype=np.uint16) | low


def _join_grey_and_alpha(parts: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the bands of the RGBA image that Pillow makes of grey and alpha."""
    return _join(parts[..., [0, 0, 0, 2]], parts[..., [1, 1, 1, 3]])


def _count_high_bytes(image: Image.Image) -> NDArray[np.int64]:
    """Count the samples of red, green and blue by their high byte, int64 [256]."""
    counts: NDArray[np.int64] = np.asarray(image.histogram(), np.int64).reshape(-1, 256)[:_COLOURS].sum(axis=0)
    return counts


def _get_alpha_range(image: Image.Image, colours: SampleRange) -> SampleRange:
    if "A" not in image.getbands():
        return FULL_RANGE
    largest = max(value for value, count in enumerate(image.getchannel("A").histogram()) if count)
    return find_alpha_range(largest, colours)


def _uses_high_bits_only(blocks: Iterable[NDArray[np.uint16]]) -> bool:
    """Whether all samples were scaled from 8 bits (multiples of 257), or all were shifted up from a lower depth.

    Low samples then mean a dark picture, not a narrow range.
    """
    from_eight_bits = shifted = True
    for samples in blocks:
        from_eight_bits = from_eight_bits and bool(np.array_equal(samples >> 8, samples & 0xFF))
        shifted = shifted and not np.bitwise_or.reduce(samples, axis=None) & _LOW_BITS
        if not from_eight_bits and not shifted:
            return False
    return True


def _list_boxes(size: tuple[int, int]) -> Iterator[_Box]:
    """Yield the boxes, of about _BLOCK_PIXELS pixels each, that together cover an image of `size`."""
    width, height = size
    columns = min(width, _BLOCK_COLUMNS)
    rows = max(1, _BLOCK_PIXELS // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)
