"""The transparent colour of a PNG without alpha (tRNS), compared with samples at the depth of the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import reduce
from itertools import chain

import numpy as np
from PIL import Image, ImageChops

# IHDR is the first chunk: signature, length and name precede width and height.
_DEPTH_OFFSET = 24


def apply_png_key(image: Image.Image, data: bytes) -> Image.Image:
    """Return the PNG `image` with 8-bit samples and an alpha that is 0 where the file's samples equal its key.

    `data` is the file of `image`, whose mode is "L", "I;16" or "RGB".
    """
    depth = data[_DEPTH_OFFSET]
    if depth < 16:
        return _convert_eight_bits(image, depth)
    return _convert_sixteen_bit_colour(image, data) if image.mode == "RGB" else _convert_sixteen_bit_grey(image)


def _convert_eight_bits(image: Image.Image, depth: int) -> Image.Image:
    """Pillow compares the key with samples that it has scaled to 8 bits. Only the low `depth` bits of a key count."""
    key, largest = image.info["transparency"], (1 << depth) - 1
    if isinstance(key, int):
        image.info["transparency"] = (key & largest) * 255 // largest
    else:
        image.info["transparency"] = tuple(value & largest for value in key)
    return image.convert("RGBA")


def _convert_sixteen_bit_grey(image: Image.Image) -> Image.Image:
    samples = np.asarray(image)
    alpha = Image.fromarray(np.where(samples == image.info["transparency"], np.uint8(0), np.uint8(255)))
    return Image.merge("LA", (Image.fromarray((samples >> 8).astype(np.uint8)), alpha))


def _convert_sixteen_bit_colour(image: Image.Image, data: bytes) -> Image.Image:
    """Give the image itself an alpha, which takes less memory than a copy."""
    key = image.info.pop("transparency")
    image.putalpha(ImageChops.invert(_match_sixteen_bit_colour(image, data, key)))
    return image


def _match_sixteen_bit_colour(image: Image.Image, data: bytes, key: tuple[int, ...]) -> Image.Image:
    """Pillow reads the high byte of each sample; read the low bytes, too, by exchanging the byte order."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as low:
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
        high_matches = _match_bands(image, tuple(value >> 8 for value in key))
        low_matches = _match_bands(low, tuple(value & 255 for value in key))
        return reduce(ImageChops.darker, chain(high_matches, low_matches))


def _match_bands(image: Image.Image, colour: tuple[int, ...]) -> Iterator[Image.Image]:
    """Yield an image for each band that is 255 where the band has the value in `colour`, and 0 elsewhere."""
    for index, value in enumerate(colour):
        yield image.getchannel(index).point([255 if sample == value else 0 for sample in range(256)])
