from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from model.errors import UnsupportedPixelFormat
from model.imaging.decode import decode_image, sniff_format
from model.imaging.input_spec import DEFAULT_INPUT

Encode = Callable[..., bytes]


def original_numbers(data: bytes) -> NDArray[np.uint8]:
    """The research script's own line."""
    return np.asarray(Image.open(io.BytesIO(data)).resize((256, 256)).convert("RGB"))


def colour(data: bytes) -> list[int]:
    """The one colour that the decoded image consists of."""
    pixels = decode_image(data, DEFAULT_INPUT).pixels
    assert pixels.shape == (256, 256, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[0, 0]).all()
    return [int(value) for value in pixels[0, 0]]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_give_the_numbers_of_the_original_script(samples: list[Path], encode: Encode, mode: str) -> None:
    """A JPEG in colour, grey or CMYK reaches the model with exactly the numbers that the research script fed it."""
    assert len(samples) == 4
    for path in samples:
        data = path.read_bytes() if mode == "RGB" else encode(Image.open(path).convert(mode), "JPEG", quality=90)
        assert np.array_equal(decode_image(data, DEFAULT_INPUT).pixels, original_numbers(data))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_format_is_decided_by_the_content(encode: Encode, name: str) -> None:
    """The first bytes name the format, and the decoded image says which it was and how large."""
    data = encode(Image.new("RGB", (30, 20), (200, 100, 50)), name)
    decoded = decode_image(data, DEFAULT_INPUT)
    assert sniff_format(data) == decoded.format == name
    assert (decoded.width, decoded.height) == (30, 20)


def test_both_byte_orders_and_bigtiff_are_tiff(encode: Encode) -> None:
    """Every kind of TIFF header is known as TIFF."""
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    assert colour(encode(image, "TIFF", big_tiff=True)) == [10, 20, 30]
    assert sniff_format(b"MM\0*") == sniff_format(b"MM\0+") == sniff_format(b"II+\0") == "TIFF"


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_grey_becomes_three_equal_channels(encode: Encode, name: str) -> None:
    """Grey samples are repeated in red, green and blue."""
    assert colour(encode(Image.new("L", (9, 9), 77), name)) == [77, 77, 77]


def test_palettes_are_looked_up_before_scaling(encode: Encode) -> None:
    """Indices are turned into colours before any averaging, so an image of two colours holds only mixtures of them."""
    image = Image.new("P", (512, 512))
    image.putpalette([0, 0, 200, 200, 0, 0, 0, 200, 0])
    image.paste(2, (0, 0, 512, 256))
    assert decode_image(encode(image, "PNG"), DEFAULT_INPUT).pixels[..., 0].max() == 0


def test_transparent_palette_entries_are_laid_over_white(encode: Encode) -> None:
    """A palette entry that is fully transparent shows white, the others their colour."""
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert colour(encode(image, "PNG", transparency=0)) == [255, 255, 255]
    assert colour(encode(image, "PNG", transparency=1)) == [10, 20, 30]


@pytest.mark.parametrize(
    ("mode", "pixel", "seen"),
    [
        ("RGBA", (0, 100, 200, 0), [255, 255, 255]),
        ("RGBA", (0, 100, 200, 255), [0, 100, 200]),
        ("RGBA", (0, 100, 200, 51), [204, 224, 244]),
        ("LA", (0, 51), [204, 204, 204]),
    ],
)
def test_alpha_is_laid_over_white(encode: Encode, mode: str, pixel: tuple[int, ...], seen: list[int]) -> None:
    """A sample weighs by its alpha, the rest is white."""
    assert colour(encode(Image.new(mode, (8, 8), pixel), "PNG")) == seen


@pytest.mark.parametrize("name", ["WEBP", "TIFF"])
def test_alpha_counts_in_every_format(encode: Encode, name: str) -> None:
    """WebP and TIFF carry alpha as PNG does."""
    options = {"lossless": True} if name == "WEBP" else {}
    assert colour(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), name, **options)) == [255, 255, 255]


def test_a_transparent_colour_of_a_png_is_laid_over_white(make_png: Encode) -> None:
    """The one colour that a PNG without alpha names as transparent shows white."""
    row, key = b"\1\2\3" * 8, struct.pack(">HHH", 1, 2, 3)
    assert colour(make_png((8, 8), 8, 2, row)) == [1, 2, 3]
    assert colour(make_png((8, 8), 8, 2, row, chunk=(b"tRNS", key))) == [255, 255, 255]


def test_sixteen_bit_grey_keeps_its_high_byte(make_png: Encode, make_tiff: Encode) -> None:
    """A 16-bit grey sample of 0x1234 becomes 0x12, in PNG and in TIFF."""
    assert colour(make_png((8, 8), 16, 0, struct.pack(">H", 0x1234) * 8)) == [0x12] * 3
    assert colour(make_tiff((8, 8), [16], struct.pack("<H", 0x1234) * 64, {})) == [0x12] * 3


def test_sixteen_bit_colour_keeps_its_high_bytes(make_png: Encode, make_tiff: Encode) -> None:
    """16-bit RGB keeps the high byte of each sample, in PNG and in TIFF."""
    samples = (0x1234, 0x5678, 0x9ABC)
    assert colour(make_png((8, 8), 16, 2, struct.pack(">HHH", *samples) * 8)) == [0x12, 0x56, 0x9A]
    tiff = make_tiff((8, 8), [16] * 3, struct.pack("<HHH", *samples) * 64, {})
    assert colour(tiff) == [0x12, 0x56, 0x9A]


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_one_bit_images_are_black_and_white(encode: Encode, name: str) -> None:
    """A set bit is white, an unset one black."""
    assert colour(encode(Image.new("1", (8, 8), 1), name)) == [255, 255, 255]
    assert colour(encode(Image.new("1", (8, 8), 0), name)) == [0, 0, 0]


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_only_the_first_frame_counts(encode: Encode, name: str) -> None:
    """Of an animation or a multi-page file, the first image is classified."""
    frames = [Image.new("RGB", (16, 16), (value, 0, 0)) for value in (250, 120, 0)]
    options = {"lossless": True} if name == "WEBP" else {}
    data = encode(frames[0], name, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert colour(data) == [250, 0, 0]


def test_the_exif_orientation_of_a_jpeg_is_ignored(samples: list[Path], encode: Encode) -> None:
    """Training saw photographs as they are stored, so requests are not turned either."""
    image = Image.open(samples[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    assert np.array_equal(
        decode_image(encode(image, "JPEG", exif=turned), DEFAULT_INPUT).pixels,
        decode_image(encode(image, "JPEG"), DEFAULT_INPUT).pixels,
    )


def test_metadata_changes_no_pixel(encode: Encode) -> None:
    """Text and resolution beside the pixels leave the numbers alone."""
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "from the air")
    assert colour(encode(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", pnginfo=text, dpi=(300, 300))) == [1, 2, 3]


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
def test_samples_without_an_agreed_meaning_are_refused(
    make_tiff: Encode, bits: list[int], pixel: bytes, tags: dict[int, tuple[int, list[int]]]
) -> None:
    """Values whose 8-bit reading would be a guess are refused as such, not guessed."""
    with pytest.raises(UnsupportedPixelFormat):
        decode_image(make_tiff((8, 8), bits, pixel * 64, tags), DEFAULT_INPUT)
