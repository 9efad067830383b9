"""Every layout of a TIFF is decoded to the pixels of a second reader, or rejected as an unsupported pixel format."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pytest

from model.errors import ImageRejected, UnsupportedPixelFormat
from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import InputSpec
from tests.model.imaging.tiffs.tiff_files import HEIGHT, KINDS, WIDTH, Layout, convert_to_rgb, read_samples, write_tiff

Encode = Callable[..., bytes]
# The size of the files, so that scaling changes no pixel.
SPEC = InputSpec(WIDTH, HEIGHT)
EIGHT, SIXTEEN = "uint8", "uint16"
# Pillow converts premultiplied colours to plain ones and back, which rounds twice.
ROUNDING = 2

GREY_OR_TRUE_COLOUR = {"grey", "three greys", "rgb", "rgb+alpha", "rgb+premultiplied", "rgb+x", "cmyk"}
NEVER_INTERLEAVED = {"grey+premultiplied", "four greys", "twelve greys", "rgb+xxxx"}
INTERLEAVED = {(kind, EIGHT) for kind in KINDS.keys() - NEVER_INTERLEAVED} | {
    (kind, SIXTEEN) for kind in GREY_OR_TRUE_COLOUR
}
PLANES = {("rgb", EIGHT), ("rgb", SIXTEEN), ("rgb+alpha", EIGHT), ("rgb+alpha", SIXTEEN), ("cmyk", EIGHT)}
COMPRESSED_PLANES = {
    (kind, dtype)
    for kind in ("rgb", "rgb+alpha", "rgb+premultiplied", "rgb+x", "rgb+xx", "rgb+xxxx", "cmyk", "cmyk+x")
    for dtype in (EIGHT, SIXTEEN)
}
READ_COMPRESSIONS = (None, "lzw", "adobe_deflate", "deflate", "packbits", "jpeg", "lzma", "zstd")
OTHER_COMPRESSIONS = ("lerc", "webp", "jpeg2000", "jpegxl", "png")
PREDICTED = {"lzw", "adobe_deflate"}


def list_layouts(compression: str | None, dtypes: tuple[str, ...]) -> Iterator[Layout]:
    predictors = (False, True) if compression in PREDICTED else (False,)
    # Encoding LZMA takes milliseconds.
    orders: tuple[Literal["<", ">"], ...] = ("<",) if compression == "lzma" else ("<", ">")
    tilings = (False,) if compression == "lzma" else (False, True)
    for kind, dtype, planar, order, tiled, predictor in itertools.product(
        KINDS, dtypes, (False, True), orders, tilings, predictors
    ):
        yield Layout(kind, dtype, planar, compression, order, tiled, predictor)


def is_read(layout: Layout) -> bool:
    """Whether the documentation lists the layout as supported."""
    if layout.compression == "jpeg" and layout.kind == "three greys":
        return False
    # The planar configuration of one band has no meaning.
    if not layout.planar or KINDS[layout.kind][1] == 1:
        return (layout.kind, layout.dtype) in INTERLEAVED
    return (layout.kind, layout.dtype) in (COMPRESSED_PLANES if layout.compression else PLANES)


def try_decoding(kind: str, data: bytes) -> str:
    """Describe how decoding ended: "read", "refused", or the fault."""
    try:
        pixels = decode_image(data, SPEC).pixels
    except UnsupportedPixelFormat:
        return "refused"
    except ImageRejected as rejection:
        return rejection.code
    difference = np.abs(pixels - convert_to_rgb(kind, read_samples(data))).max()
    tolerance = ROUNDING if kind.endswith("premultiplied") else 0
    return "read" if difference <= tolerance else f"wrong by {difference:.0f}"


@pytest.mark.parametrize("compression", READ_COMPRESSIONS)
def test_each_layout_has_the_pixels_of_a_second_reader_or_is_rejected(compression: str | None) -> None:
    """Documented layouts are decoded to the pixels of a second reader; all others are rejected as unsupported."""
    faults = {}
    for layout in list_layouts(compression, (EIGHT,) if compression == "jpeg" else (EIGHT, SIXTEEN)):
        try:
            data = write_tiff(layout)
        except ValueError:  # JPEG has no strips of two, or of five or more, bands
            assert compression == "jpeg"
            continue
        outcome = try_decoding(layout.kind, data)
        if outcome != ("read" if is_read(layout) else "refused"):
            faults[str(layout)] = outcome
    assert faults == {}


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "float16", "float32", "float64"])
def test_other_samples_are_unsupported_in_every_layout(dtype: str) -> None:
    """Signed, 32-bit and floating-point samples are rejected as unsupported, never as corrupt."""
    layouts = (layout for compression in (None, "zstd") for layout in list_layouts(compression, (dtype,)))
    outcomes = {str(layout): try_decoding(layout.kind, write_tiff(layout)) for layout in layouts if not layout.tiled}
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "refused"} == {}


@pytest.mark.parametrize("compression", OTHER_COMPRESSIONS)
def test_other_compressions_are_unsupported(compression: str) -> None:
    """Compressions that not every build of Pillow supports are rejected, and the message names them."""
    data = write_tiff(Layout("rgb", EIGHT, False, compression, "<", False))
    name = {"lerc": "LERC", "webp": "WebP", "jpeg2000": "JPEG 2000", "jpegxl": "JPEG XL", "png": "compression 34933"}
    with pytest.raises(UnsupportedPixelFormat, match=name[compression]):
        decode_image(data, SPEC)


@pytest.mark.parametrize(
    ("layout", "described", "command"),
    [
        (
            Layout("rgb", "float32", False, None, "<", False),
            "3 bands of 32 bits (floating-point), RGB, no compression",
            "gdal_translate -ot Byte -scale -b 1 -b 2 -b 3 -co PHOTOMETRIC=RGB -co INTERLEAVE=PIXEL",
        ),
        (
            Layout("twelve greys", "uint16", True, "lzw", ">", True),
            "12 bands of 16 bits (unsigned), BlackIsZero, separate planes, LZW compression",
            "gdal_translate -b 1 -b 2 -b 3 -co PHOTOMETRIC=RGB -co INTERLEAVE=PIXEL",
        ),
        (
            Layout("grey+alpha", "uint8", True, "packbits", "<", False),
            "2 bands of 8 bits (unsigned), BlackIsZero, separate planes, PackBits compression",
            "gdal_translate -ot Byte -b 1 -co INTERLEAVE=PIXEL",
        ),
        (
            Layout("grey", "int8", False, "packbits", "<", False),
            "1 band of 8 bits (signed), BlackIsZero, PackBits compression",
            "gdal_translate -ot Byte -scale -b 1 -co INTERLEAVE=PIXEL",
        ),
        (
            Layout("cmyk", "uint16", True, None, "<", False),
            "4 bands of 16 bits (unsigned), CMYK, separate planes, no compression",
            "magick INPUT.tif -colorspace sRGB -depth 8",
        ),
    ],
    ids=["floats", "bands", "planes", "signed", "CMYK planes"],
)
def test_the_message_describes_the_layout_and_a_conversion(layout: Layout, described: str, command: str) -> None:
    """The error names the bands, bits, samples and compression, and a command that converts the file."""
    data = write_tiff(layout)
    for read in (decode_image, measure_image):
        with pytest.raises(UnsupportedPixelFormat) as refusal:
            read(data, SPEC)
        assert described in str(refusal.value)
        assert command in str(refusal.value)
