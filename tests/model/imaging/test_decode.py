"""Decoding images of all formats and modes to the pixels that the model was trained with."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from model.errors import UnsupportedPixelFormat
from model.imaging.decode import decode_image, sniff_format
from model.imaging.input_spec import DEFAULT_INPUT
from tests.model.imaging.crafted_images import decode_as_in_training

Encode = Callable[..., bytes]


def get_colour(data: bytes) -> list[int]:
    """Decode an image of one colour, and return that colour."""
    pixels = decode_image(data, DEFAULT_INPUT).pixels
    assert pixels.shape == (256, 256, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[0, 0]).all()
    return [int(value) for value in pixels[0, 0]]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_decode_as_in_training(samples: list[Path], encode: Encode, mode: str) -> None:
    """A JPEG in colour, grey or CMYK gives exactly the pixels of the research script."""
    assert len(samples) == 4
    for path in samples:
        data = path.read_bytes() if mode == "RGB" else encode(Image.open(path).convert(mode), "JPEG", quality=90)
        assert np.array_equal(decode_image(data, DEFAULT_INPUT).pixels, decode_as_in_training(data))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_format_is_detected_from_the_content(encode: Encode, name: str) -> None:
    """The first bytes decide the format, and the decoded image reports the format and size of its source."""
    data = encode(Image.new("RGB", (30, 20), (200, 100, 50)), name)
    decoded = decode_image(data, DEFAULT_INPUT)
    assert sniff_format(data) == decoded.format == name
    assert (decoded.width, decoded.height) == (30, 20)


def test_both_byte_orders_and_bigtiff_are_tiff(encode: Encode) -> None:
    """Every kind of TIFF header is detected as TIFF."""
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    assert get_colour(encode(image, "TIFF", big_tiff=True)) == [10, 20, 30]
    assert sniff_format(b"MM\0*") == sniff_format(b"MM\0+") == sniff_format(b"II+\0") == "TIFF"


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_grey_becomes_three_equal_channels(encode: Encode, name: str) -> None:
    """Grey samples are repeated in red, green and blue."""
    assert get_colour(encode(Image.new("L", (9, 9), 77), name)) == [77, 77, 77]


def test_palettes_are_applied_before_scaling(encode: Encode) -> None:
    """Palette indices become colours before scaling, so that only colours of the image are mixed."""
    image = Image.new("P", (512, 512))
    image.putpalette([0, 0, 200, 200, 0, 0, 0, 200, 0])
    image.paste(2, (0, 0, 512, 256))
    assert decode_image(encode(image, "PNG"), DEFAULT_INPUT).pixels[..., 0].max() == 0


def test_transparent_palette_entries_become_white(encode: Encode) -> None:
    """A fully transparent palette entry becomes white, other entries keep their colour."""
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert get_colour(encode(image, "PNG", transparency=0)) == [255, 255, 255]
    assert get_colour(encode(image, "PNG", transparency=1)) == [10, 20, 30]


@pytest.mark.parametrize(
    ("mode", "pixel", "seen"),
    [
        ("RGBA", (0, 100, 200, 0), [255, 255, 255]),
        ("RGBA", (0, 100, 200, 255), [0, 100, 200]),
        ("RGBA", (0, 100, 200, 51), [204, 224, 244]),
        ("LA", (0, 51), [204, 204, 204]),
    ],
)
def test_alpha_is_composited_over_white(encode: Encode, mode: str, pixel: tuple[int, ...], seen: list[int]) -> None:
    """A sample is weighted by its alpha and white by the rest."""
    assert get_colour(encode(Image.new(mode, (8, 8), pixel), "PNG")) == seen


@pytest.mark.parametrize("name", ["WEBP", "TIFF"])
def test_alpha_is_respected_in_every_format(encode: Encode, name: str) -> None:
    """Transparent pixels of WebP and TIFF become white like those of PNG."""
    options = {"lossless": True} if name == "WEBP" else {}
    assert get_colour(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), name, **options)) == [255, 255, 255]


def test_the_transparent_colour_of_a_png_becomes_white(make_png: Encode) -> None:
    """The colour that a PNG without alpha declares transparent becomes white."""
    row, key = b"\1\2\3" * 8, struct.pack(">HHH", 1, 2, 3)
    assert get_colour(make_png((8, 8), 8, 2, row)) == [1, 2, 3]
    assert get_colour(make_png((8, 8), 8, 2, row, chunk=(b"tRNS", key))) == [255, 255, 255]


def test_sixteen_bit_grey_keeps_its_high_byte(make_png: Encode, make_tiff: Encode) -> None:
    """A 16-bit grey sample of 0xABCD becomes 0xAB, in PNG and in TIFF."""
    assert get_colour(make_png((8, 8), 16, 0, struct.pack(">H", 0xABCD) * 8)) == [0xAB] * 3
    assert get_colour(make_tiff((8, 8), [16], struct.pack("<H", 0xABCD) * 64, {})) == [0xAB] * 3


def test_sixteen_bit_colour_keeps_its_high_bytes(make_png: Encode, make_tiff: Encode) -> None:
    """16-bit RGB keeps the high byte of each sample, in PNG and in TIFF."""
    samples = (0x1234, 0x5678, 0x9ABC)
    assert get_colour(make_png((8, 8), 16, 2, struct.pack(">HHH", *samples) * 8)) == [0x12, 0x56, 0x9A]
    tiff = make_tiff((8, 8), [16] * 3, struct.pack("<HHH", *samples) * 64, {})
    assert get_colour(tiff) == [0x12, 0x56, 0x9A]


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_one_bit_images_are_black_and_white(encode: Encode, name: str) -> None:
    """A set bit becomes white, an unset bit black."""
    assert get_colour(encode(Image.new("1", (8, 8), 1), name)) == [255, 255, 255]
    assert get_colour(encode(Image.new("1", (8, 8), 0), name)) == [0, 0, 0]


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_only_the_first_frame_is_decoded(encode: Encode, name: str) -> None:
    """An animation or a multi-page file is decoded to its first image."""
    frames = [Image.new("RGB", (16, 16), (value, 0, 0)) for value in (250, 120, 0)]
    options = {"lossless": True} if name == "WEBP" else {}
    data = encode(frames[0], name, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert get_colour(data) == [250, 0, 0]


def test_metadata_changes_no_pixel(encode: Encode) -> None:
    """Text and resolution in the file do not affect the pixels."""
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "from the air")
    assert get_colour(encode(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", pnginfo=text, dpi=(300, 300))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("bits", "pixel", "tags"),
    [
        pytest.param([32], struct.pack("<f", 0.5), {339: (3, [3])}, id="32-bit float"),
        pytest.param([16], struct.pack("<h", 500), {339: (3, [2])}, id="16-bit signed"),
        pytest.param([16], struct.pack("<H", 500), {262: (3, [0])}, id="16-bit, 0 is white"),
        pytest.param([12], b"\xff\xff", {}, id="12-bit"),
        pytest.param([8, 8], b"\x40\x80", {262: (3, [1]), 338: (3, [1])}, id="grey with premultiplied alpha"),
        pytest.param([8, 8, 8], b"\x40\x40\x40", {262: (3, [8])}, id="CIE Lab"),
    ],
)
def test_samples_without_an_agreed_meaning_are_rejected(
    make_tiff: Encode, bits: list[int], pixel: bytes, tags: dict[int, tuple[int, list[int]]]
) -> None:
    """Samples whose conversion to 8 bits is ambiguous raise UnsupportedPixelFormat."""
    with pytest.raises(UnsupportedPixelFormat):
        decode_image(make_tiff((8, 8), bits, pixel * 64, tags), DEFAULT_INPUT)
