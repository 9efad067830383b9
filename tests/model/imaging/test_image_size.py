"""Reading the size of an image from its header."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from model.errors import CorruptImage, EmptyImage, ImageTooManyBytes, ImageTooManyPixels, UnsupportedImage
from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import DEFAULT_INPUT


def make_noise(kind: str, size: tuple[int, int] = (70, 50)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def read_size(data: bytes) -> tuple[int, int]:
    needs = measure_image(data, DEFAULT_INPUT)
    assert needs.pixels == needs.width * needs.height
    return needs.width, needs.height


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_header_has_the_size_of_the_decoded_image(kind: str) -> None:
    """Measuring and decoding report the same width and height."""
    data = make_noise(kind)
    decoded = decode_image(data, DEFAULT_INPUT)
    assert read_size(data) == (decoded.width, decoded.height) == (70, 50)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_no_pixel_is_decoded(kind: str) -> None:
    """The size of an image with truncated pixels can be read."""
    data = make_noise(kind)
    assert read_size(data[: len(data) // 2]) == (70, 50)


def test_measuring_rejects_what_decoding_rejects() -> None:
    """`measure_image` raises the same errors as `decode_image`."""
    with pytest.raises(EmptyImage):
        measure_image(b"", DEFAULT_INPUT)
    with pytest.raises(UnsupportedImage):
        measure_image(b"GIF89a", DEFAULT_INPUT)
    with pytest.raises(CorruptImage):
        measure_image(make_noise("PNG")[:20], DEFAULT_INPUT)
    with pytest.raises(ImageTooManyPixels):
        measure_image(make_noise("PNG"), DEFAULT_INPUT, max_pixels=3499)
    with pytest.raises(ImageTooManyBytes):
        measure_image(make_noise("PNG"), DEFAULT_INPUT, max_bytes=100)
    with pytest.raises(UnsupportedImage):
        measure_image(b"\xff\xd8\xff\xe0\x00\x02" + b"\xff\xe1\x00\x02" * 6000, DEFAULT_INPUT)
