"""Limits on bytes and pixels, which are checked before any pixel is decoded."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from model import errors
from model.imaging.bounds import MAX_PIXELS
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.model.imaging.crafted_images import (
    FORMATS,
    make_big_tiff,
    make_jpeg_header,
    make_small,
    make_webp_canvas,
)

Encode = Callable[..., bytes]
# Above the limit for all images, and above the limit of one call.
CLAIMS = pytest.mark.parametrize(("side", "max_pixels"), [(60_000, MAX_PIXELS), (3_000, 1_000_000)])


def test_bytes_are_limited_first() -> None:
    """One byte more than the limit is rejected before the bytes are read; the limit itself is allowed."""
    data = make_small("PNG")
    with pytest.raises(errors.ImageTooManyBytes):
        decode_image(data, DEFAULT_INPUT, max_bytes=len(data) - 1)
    with pytest.raises(errors.ImageTooManyBytes):
        decode_image(b"\0" * 20_000_001, DEFAULT_INPUT)
    assert decode_image(data, DEFAULT_INPUT, max_bytes=len(data)).width == 24


@pytest.mark.parametrize("name", FORMATS)
def test_the_limit_on_pixels_is_exact(name: str) -> None:
    """An image with as many pixels as the limit is decoded, one with one pixel more is rejected."""
    assert decode_image(make_small(name), DEFAULT_INPUT, max_pixels=24 * 24).height == 24
    with pytest.raises(errors.ImageTooManyPixels):
        decode_image(make_small(name), DEFAULT_INPUT, max_pixels=24 * 24 - 1)


@CLAIMS
def test_the_size_of_a_png_is_read_from_its_header(make_png: Encode, side: int, max_pixels: int) -> None:
    """A PNG that declares too many pixels and holds none is too large, not corrupt: nothing was decoded."""
    with pytest.raises(errors.ImageTooManyPixels):
        decode_image(make_png((side, side), 8, 2, b"", rows=0), DEFAULT_INPUT, max_pixels=max_pixels)


@CLAIMS
def test_the_size_of_a_jpeg_is_read_from_its_header(side: int, max_pixels: int) -> None:
    """A truncated JPEG that declares too many pixels is too large, not corrupt."""
    data = make_jpeg_header(side, side)
    with pytest.raises(errors.ImageTooManyPixels):
        decode_image(data[: data.index(b"\xff\xda") + 16], DEFAULT_INPUT, max_pixels=max_pixels)


@CLAIMS
def test_the_size_of_a_tiff_is_read_from_its_header(make_tiff: Encode, side: int, max_pixels: int) -> None:
    """A TIFF that declares too many pixels and holds one byte is too large, not corrupt."""
    with pytest.raises(errors.ImageTooManyPixels):
        decode_image(make_tiff((side, side), [8], b"\0", {}), DEFAULT_INPUT, max_pixels=max_pixels)


def test_the_canvas_of_a_webp_is_limited() -> None:
    """A WebP with a canvas of 16000x16000 is rejected before the canvas is allocated; a small canvas is decoded."""
    assert decode_image(make_webp_canvas(30, 30), DEFAULT_INPUT).width == 30
    with pytest.raises(errors.ImageTooManyPixels, match="16000x16000"):
        decode_image(make_webp_canvas(16_000, 16_000), DEFAULT_INPUT)


@pytest.mark.parametrize("kind", [pytest.param(4, id="LONG"), pytest.param(17, id="SLONG8")])
@pytest.mark.parametrize("side", [32, 8_000])
def test_the_tiles_of_a_tiff_are_limited(make_tiff: Encode, kind: int, side: int) -> None:
    """A TIFF of 1x1 cannot make the decoder allocate a tile above the limit, whichever type the tile's size has."""
    tile = zlib.compress(bytes(32 * 32))
    tags = {259: (3, [8]), 322: (kind, [side]), 323: (kind, [side]), 324: (4, [0]), 325: (4, [len(tile)])}
    data = make_big_tiff(make_tiff((1, 1), [8], tile, tags))
    if side * side <= MAX_PIXELS:
        assert decode_image(data, DEFAULT_INPUT).width == 1
    else:
        with pytest.raises(errors.ImageTooManyPixels, match="8000x8000"):
            decode_image(data, DEFAULT_INPUT)


@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_a_side_is_limited(make_png: Encode, size: tuple[int, int]) -> None:
    """An image with one long row or column is rejected, because scaling it to a square would take gigabytes."""
    with pytest.raises(errors.ImageTooManyPixels, match="side"):
        decode_image(make_png(size, 8, 0, b"\0" * size[0]), DEFAULT_INPUT)
