"""The size of an image, from its header alone."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from model.errors import CorruptImage, EmptyImage, ImageTooManyBytes, ImageTooManyPixels, UnsupportedImage
from model.imaging.decode import decode_image, image_needs


def encoded(kind: str, size: tuple[int, int] = (70, 50)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def size(data: bytes) -> tuple[int, int]:
    needs = image_needs(data)
    assert needs.pixels == needs.width * needs.height
    return needs.width, needs.height


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_size_is_that_of_the_decoded_image(kind: str) -> None:
    """The header's width and height are the ones that decoding finds."""
    data = encoded(kind)
    decoded = decode_image(data)
    assert size(data) == (decoded.width, decoded.height) == (70, 50)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_no_pixel_is_decoded(kind: str) -> None:
    """An image whose pixels are cut off still has a size."""
    data = encoded(kind)
    assert size(data[: len(data) // 2]) == (70, 50)


def test_a_header_is_refused_as_by_the_decoder() -> None:
    """The errors are those of `decode_image`."""
    with pytest.raises(EmptyImage):
        image_needs(b"")
    with pytest.raises(UnsupportedImage):
        image_needs(b"GIF89a")
    with pytest.raises(CorruptImage):
        image_needs(encoded("PNG")[:20])
    with pytest.raises(ImageTooManyPixels):
        image_needs(encoded("PNG"), max_pixels=3499)
    with pytest.raises(ImageTooManyBytes):
        image_needs(encoded("PNG"), max_bytes=100)
    with pytest.raises(UnsupportedImage):
        image_needs(b"\xff\xd8\xff\xe0\x00\x02" + b"\xff\xe1\x00\x02" * 6000)
