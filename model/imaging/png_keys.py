"""The transparent colour of a PNG without alpha (tRNS), compared with samples at the depth of the file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import chain

from PIL import Image, ImageChops


def apply_png_key(image: Image.Image, depth: int) -> Image.Image:
    """Return the PNG `image` of `depth` bits, at most 8, with an alpha that is 0 where its samples equal its key.

    The key is scaled to 8 bits because Pillow compares it with scaled samples. Only its low `depth` bits are used.
    """
    key, largest = image.info["transparency"], (1 << depth) - 1
    if isinstance(key, int):
        image.info["transparency"] = (key & largest) * 255 // largest
    else:
        image.info["transparency"] = tuple(value & largest for value in key)
    return image.convert("RGBA")


def match_sixteen_bit_colour(high: Image.Image, low: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """Return the alpha of 16-bit colours whose `high` and `low` bytes are given: 0 where they equal the key."""
    high_matches = _match_bands(high, tuple(value >> 8 for value in key))
    low_matches = _match_bands(low, tuple(value & 255 for value in key))
    return ImageChops.invert(reduce(ImageChops.darker, chain(high_matches, low_matches)))


def _match_bands(image: Image.Image, colour: tuple[int, ...]) -> Iterator[Image.Image]:
    """Yield for each band an image that is 255 where the band has the value in `colour`, and 0 elsewhere."""
    for index, value in enumerate(colour):
        yield image.getchannel(index).point([255 if sample == value else 0 for sample in range(256)])
