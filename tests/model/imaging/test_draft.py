"""Large JPEGs are decoded at a lower scale; all other images at full scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.model.imaging.crafted_images import decode_as_in_training

Encode = Callable[..., bytes]


@pytest.fixture(scope="module")
def photograph(samples: list[Path]) -> Image.Image:
    with Image.open(samples[0]) as image:
        return image.convert("RGB")


@pytest.mark.parametrize("size", [(256, 256), (2047, 2047), (4000, 2047), (2047, 3000)])
def test_below_twice_the_reduced_side_every_bit_is_equal(
    photograph: Image.Image, encode: Encode, size: tuple[int, int]
) -> None:
    """A JPEG with a side shorter than 2,048 pixels is decoded at full scale, to the pixels of the research script."""
    data = encode(photograph.resize(size), "JPEG", quality=90)
    assert np.array_equal(decode_image(data, DEFAULT_INPUT).pixels, decode_as_in_training(data))


@pytest.mark.parametrize("size", [(2048, 2048), (6000, 4100)])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_jpeg_differs_by_no_more_than_two(
    photograph: Image.Image, encode: Encode, size: tuple[int, int], progressive: bool
) -> None:
    """At half and quarter scale, the model's pixels differ by at most 2, and the reported size is the file's."""
    data = encode(photograph.resize(size), "JPEG", quality=90, progressive=progressive)
    decoded = decode_image(data, DEFAULT_INPUT)
    assert np.abs(decoded.pixels.astype(int) - decode_as_in_training(data)).max() <= 2
    assert (decoded.width, decoded.height) == size


def test_a_large_png_is_decoded_at_full_scale(photograph: Image.Image, encode: Encode) -> None:
    """A large PNG is decoded to the pixels of the research script: only JPEGs can be decoded at a lower scale."""
    data = encode(photograph.resize((2100, 2100)), "PNG", compress_level=1)
    assert np.array_equal(decode_image(data, DEFAULT_INPUT).pixels, decode_as_in_training(data))


def test_a_large_jpeg_takes_little_memory(photograph: Image.Image, encode: Encode) -> None:
    """The estimate for a large JPEG depends on its size at the lower scale, that for a PNG on the size of the file."""
    large = photograph.resize((4096, 2100))
    jpeg, png = (measure_image(encode(large, name), DEFAULT_INPUT) for name in ("JPEG", "PNG"))
    assert jpeg.pixels == png.pixels == 4096 * 2100
    assert jpeg.bytes < 4 * (2 * DEFAULT_INPUT.reduced_side) ** 2 + 10_000_000 < 4 * png.pixels < png.bytes
