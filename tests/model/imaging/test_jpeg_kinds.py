"""Uncommon kinds of JPEG are decoded correctly or rejected with the reason."""

from __future__ import annotations

from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from model.errors import CorruptImage, UnsupportedPixelFormat
from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import InputSpec

Encode = Callable[..., bytes]
SIDE = 64
SPEC = InputSpec(SIDE, SIDE)
RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (SIDE, 1))
PLANES = np.ascontiguousarray(np.stack([RAMP, RAMP.T, RAMP // 2, RAMP.T // 3], axis=-1))
COLOURS = PLANES[..., :3].copy()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(
            imagecodecs.jpeg_encode(RAMP.astype(np.uint16) * 16, bitspersample=12),
            "1 component of 12 bits, extended sequential",
            id="12 bits",
        ),
        pytest.param(
            imagecodecs.jpeg_encode(RAMP.astype(np.uint16) * 16, bitspersample=16, lossless=True),
            "1 component of 16 bits, lossless",
            id="lossless with 16 bits",
        ),
        pytest.param(imagecodecs.jpegls_encode(RAMP), "1 component of 8 bits, JPEG-LS", id="JPEG-LS"),
        pytest.param(
            imagecodecs.jpegls_encode(PLANES[..., :3].copy()), "3 components of 8 bits, JPEG-LS", id="JPEG-LS colour"
        ),
    ],
)
def test_other_kinds_of_jpeg_are_unsupported(data: bytes, kind: str) -> None:
    """A complete JPEG of an unsupported kind is not reported as corrupt; the message names its samples and process."""
    for read in (decode_image, measure_image):
        with pytest.raises(UnsupportedPixelFormat, match=kind):
            read(data, SPEC)


def test_a_jpeg_of_two_components_is_unsupported(encode: Encode) -> None:
    """A JPEG of two components, which have no agreed meaning, is unsupported."""
    data = encode(Image.fromarray(RAMP), "JPEG")
    frame = data.index(b"\xff\xc0")
    two = data[: frame + 9] + b"\2" + data[frame + 10 :]
    with pytest.raises(UnsupportedPixelFormat, match="2 components of 8 bits, baseline"):
        decode_image(two, SPEC)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_truncated_jpeg_is_corrupt(encode: Encode, mode: str) -> None:
    """A truncated JPEG of a supported kind is corrupt."""
    data = encode(Image.fromarray(COLOURS).convert(mode), "JPEG")
    with pytest.raises(CorruptImage):
        decode_image(data[: len(data) // 2], SPEC)


@pytest.mark.parametrize("stored", ["CMYK", "YCCK"])
def test_adobe_inverts_the_inks_of_a_jpeg(stored: str) -> None:
    """CMYK and YCCK JPEGs with Adobe's marker, which store inverted inks, decode as in a second reader."""
    data = bytes(imagecodecs.jpeg_encode(PLANES, level=98, colorspace="CMYK", outcolorspace=stored))
    assert b"Adobe" in data
    paper = imagecodecs.jpeg_decode(data, outcolorspace="CMYK").astype(float)  # 255 where there is no ink
    expected = np.round(paper[..., :3] * paper[..., 3:] / 255)
    assert np.abs(decode_image(data, SPEC).pixels - expected).max() <= 1


def test_a_jpeg_that_stores_rgb_is_read_as_such() -> None:
    """A JPEG whose Adobe marker declares RGB components is decoded as RGB."""
    data = bytes(imagecodecs.jpeg_encode(COLOURS, level=98, colorspace="RGB", outcolorspace="RGB"))
    assert np.array_equal(decode_image(data, SPEC).pixels, imagecodecs.jpeg_decode(data))
