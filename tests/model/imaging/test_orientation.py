"""Images of every format are rotated upright according to their metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import InputSpec
from tests.model.imaging.crafted_images import FORMATS

Encode = Callable[..., bytes]
# For each orientation (TIFF 6.0, tag 274), the transformation of the upright image to the stored pixels.
STORED: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}
LOSSLESS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {},
}
Y, X = np.mgrid[:32, :48]
UPRIGHT = Image.fromarray(np.stack([X * 5, Y * 8, X + Y], axis=-1).astype(np.uint8))
SPEC = InputSpec(*UPRIGHT.size)


def encode_turned(encode: Encode, name: str, orientation: int, image: Image.Image = UPRIGHT) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(STORED[orientation](image), name, exif=exif, **LOSSLESS[name])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_turned_upright(encode: Encode, name: str, orientation: int) -> None:
    """An image that is stored in any of the eight orientations is decoded to the upright pixels."""
    decoded = decode_image(encode_turned(encode, name, orientation), SPEC)
    tolerance = 8 if name == "JPEG" else 0
    assert np.abs(decoded.pixels.astype(int) - np.asarray(UPRIGHT)).max() <= tolerance


@pytest.mark.parametrize("name", FORMATS)
def test_the_size_is_that_of_the_stored_pixels(encode: Encode, name: str) -> None:
    """The reported width and height are those of the stored pixels, even if the image is rotated."""
    data = encode_turned(encode, name, 6)
    decoded, needs = decode_image(data, SPEC), measure_image(data, SPEC)
    assert (decoded.width, decoded.height) == (needs.width, needs.height) == (32, 48)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_invalid_orientation_is_ignored(encode: Encode, name: str, orientation: int) -> None:
    """An undefined orientation leaves the image as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, odd = (encode(UPRIGHT, name, **LOSSLESS[name], **options) for options in ({}, {"exif": exif}))
    assert np.array_equal(decode_image(odd, SPEC).pixels, decode_image(plain, SPEC).pixels)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0" + b"\xff" * 99], ids=["empty", "noise"])
def test_unreadable_metadata_is_ignored(encode: Encode, name: str, exif: bytes) -> None:
    """Damaged EXIF data does not make the image corrupt."""
    assert decode_image(encode(UPRIGHT, name, exif=exif), SPEC).width == 48


def test_the_metadata_of_a_png_may_follow_its_pixels(encode: Encode) -> None:
    """The orientation in the eXIf chunk of a PNG is applied even if the chunk follows the pixels."""
    data = encode_turned(encode, "PNG", 8)
    start = data.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(data[start : start + 4])
    end = data.index(b"IEND") - 4
    moved = data[:start] + data[stop:end] + data[start:stop] + data[end:]
    assert np.array_equal(decode_image(moved, SPEC).pixels, np.asarray(UPRIGHT))


@pytest.mark.parametrize("name", FORMATS)
def test_a_turned_image_is_scaled_to_the_width_and_height_of_the_model(encode: Encode, name: str) -> None:
    """After scaling, an image that is stored on its side differs from the upright one only by rounding."""
    large, spec = UPRIGHT.resize((480, 320)), InputSpec(50, 20)
    upright, turned = (decode_image(encode_turned(encode, name, number, large), spec) for number in (1, 6))
    assert turned.pixels.shape == (20, 50, 3)
    assert np.abs(turned.pixels.astype(int) - upright.pixels).max() <= (3 if name == "JPEG" else 1)
