"""Threat T71: image files whose structure takes more time to read than its length justifies."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from model.errors import ImageRejected
from model.imaging.decode import measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.imaging.quick_headers import has_quick_header, measure_plain_jpeg
from tests.model.imaging.crafted_images import make_small
from tests.support.images import jpegs, webps

ARITHMETIC_FRAME = jpegs.make_frame(jpegs.ARITHMETIC, 8, 8)


def count_calls(data: bytes) -> int:
    """Return the number of calls, including those of built-in functions, that reading the header takes."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        measure_image(data, DEFAULT_INPUT)
    except ImageRejected:
        pass
    finally:
        sys.setprofile(None)
    return calls


def test_components_do_not_multiply_the_work_of_scans() -> None:
    """T71: a JPEG with 255 components in its frame and in each of 61 scans is rejected in a few calls."""
    scan = jpegs.make_scan([255] * 255)
    data = jpegs.make_jpeg(jpegs.make_frame(jpegs.BASELINE, 8, 8, (0x11,) * 255), scan * 61)
    assert count_calls(data) < 5_000
    assert measure_plain_jpeg(data, DEFAULT_INPUT) is None
    assert not has_quick_header(data)


@pytest.mark.parametrize(
    "segment",
    [jpegs.make_segment(0xC8, b"\xff\xe1\0\x40"), b"\xff\xdb\0\0"],
    ids=["reserved marker", "no length"],
)
def test_pixels_are_never_searched_for_a_header(segment: bytes) -> None:
    """T71: no segment makes Pillow search the pixels byte by byte for the first scan."""
    data = jpegs.make_jpeg(ARITHMETIC_FRAME, segment, jpegs.make_scan(), bytes(200_000))
    assert count_calls(data) < 5_000
    assert not has_quick_header(data)


def make_animation(images: int) -> bytes:
    """Return a WebP whose first frame has that many lossless images."""
    frame = webps.make_frame(16, 16, webps.make_chunk(b"VP8L", webps.make_grouped_pixels(16, 16, 2)) * images)
    return webps.make_webp(webps.make_extended_header(0x02, 16, 16), webps.make_chunk(b"ANIM", bytes(6)), frame)


def test_only_the_first_image_of_a_frame_is_read() -> None:
    """T71: further images in the first frame of a WebP take no more work than other bytes."""
    assert measure_image(make_animation(1), DEFAULT_INPUT).width == 16
    assert count_calls(make_animation(50)) == count_calls(make_animation(1))


@pytest.mark.parametrize("data", [make_small("PNG"), make_small("WEBP")], ids=["PNG", "WebP"])
def test_the_search_for_exif_data_ends_with_the_file(data: bytes) -> None:
    """T71: a file without Exif data takes no more steps than it has chunks."""
    assert count_calls(data) < 1_000
