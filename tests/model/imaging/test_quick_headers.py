"""Which image headers may be read on an event loop."""

from __future__ import annotations

import io
import math
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from model.errors import ImageRejected
from model.imaging.containers.jpeg import MAX_SEGMENTS
from model.imaging.decode import ImageNeeds, measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.imaging.quick_headers import has_quick_header, measure_plain_jpeg
from tests.support.images import jpegs

FRAME = jpegs.make_frame(jpegs.BASELINE, 8, 8)
SCAN = jpegs.make_scan()


def make_image(name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((200, 150), 50).convert("RGB").save(buffer, name, **options)
    return buffer.getvalue()


def measure_quickly(data: bytes) -> ImageNeeds | None:
    """Measure an image as the event loop does, or return None for one that it leaves to the worker threads."""
    needs = measure_plain_jpeg(data, DEFAULT_INPUT)
    return measure_image(data, DEFAULT_INPUT) if needs is None and has_quick_header(data) else needs


def make_jpeg(*segments: bytes, pixels: bytes = bytes(100)) -> bytes:
    """A JPEG with additional segments before its frame header."""
    return jpegs.make_jpeg(*segments, FRAME, SCAN, pixels)


def test_photographs_have_quick_headers(samples: list[Path]) -> None:
    """The sample photographs of up to 256 KiB are measured on the event loop."""
    small = [sample for sample in samples if sample.stat().st_size <= 256 * 1024]
    assert small
    assert all(measure_quickly(sample.read_bytes()) for sample in small)


@pytest.mark.parametrize(("name", "options"), [("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})])
def test_plain_images_have_quick_headers(name: str, options: dict[str, object]) -> None:
    """A small image without metadata is measured on the event loop."""
    assert measure_quickly(make_image(name, **options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"exif": b"Exif\0\0" + b"x" * 5000}),
        ("JPEG", {"icc_profile": b"x" * 70_000}),
        ("PNG", {"icc_profile": b"x"}),
        ("WEBP", {"exif": b"Exif\0\0x"}),
        ("TIFF", {}),
    ],
)
def test_metadata_are_left_to_the_worker_threads(name: str, options: dict[str, object]) -> None:
    """A header with EXIF or a colour profile, and any TIFF, is not read on the event loop."""
    assert measure_quickly(make_image(name, **options)) is None


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"iCCP", b"abcd"])
def test_chunks_that_may_be_large_are_left_to_the_worker_threads(make_png: Callable[..., bytes], kind: bytes) -> None:
    """A PNG with a chunk other than plain numbers before its pixels is not read on the event loop."""
    assert not has_quick_header(make_png((8, 8), 8, 0, bytes(8), chunk=(kind, b"x\0\0" + zlib.compress(b"y" * 99))))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(make_jpeg(jpegs.make_segment(0xC4, bytes(5000))), id="large tables"),
        pytest.param(make_jpeg(jpegs.make_segment(0xE1, bytes(65_000))), id="large segment"),
        pytest.param(make_jpeg(*[b"\xff\xfe\x00\x02"] * 100), id="many segments"),
        pytest.param(b"\xff\xd8" + FRAME + SCAN * 100, id="many scans"),
        pytest.param(make_jpeg(pixels=b"\xff\0" * 20_000), id="many stuffed bytes"),
        pytest.param(jpegs.make_jpeg(FRAME, jpegs.make_segment(0xC8, bytes(5000)), SCAN), id="reserved segment"),
        pytest.param(jpegs.make_jpeg(jpegs.make_frame(jpegs.ARITHMETIC, 8, 8), SCAN), id="arithmetic coding"),
        pytest.param(jpegs.make_jpeg(jpegs.make_frame(jpegs.BASELINE, 8, 8, (0x11,) * 4), SCAN), id="four components"),
        pytest.param(
            b"\xff\xd8\xff\xd9" + jpegs.make_segment(0xE1, bytes(60_000)) + FRAME + SCAN, id="segments after the end"
        ),
        pytest.param(b"\xff\xd8" + FRAME, id="no scan"),
        pytest.param(make_jpeg() + bytes(256 * 1024), id="large file"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + (b"\0\0\0\0IDAT\0\0\0\0") * 100, id="many chunks"),
        pytest.param(b"RIFF\0\0\0\0WEBPVP8X", id="extended WebP"),
        pytest.param(make_image("WEBP", lossless=True), id="lossless WebP"),
    ],
)
def test_unusual_files_are_left_to_the_worker_threads(data: bytes) -> None:
    """An unusual file, such as one with large tables or many segments, is not read on the event loop."""
    assert measure_quickly(data) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(make_jpeg(jpegs.make_segment(0xE0, bytes(16)), jpegs.make_segment(0xE1, bytes(3900))), id="EXIF"),
        pytest.param(make_jpeg(*[b"\xff\xfe\x00\x02"] * 60), id="segments"),
        pytest.param(b"\xff\xd8" + FRAME + SCAN * 50 + b"\xff\0" * 16_000, id="scans and stuffed bytes"),
        pytest.param(make_image("PNG"), id="PNG"),
        pytest.param(make_image("WEBP"), id="WebP"),
    ],
)
def test_quick_headers_are_quick(data: bytes) -> None:
    """The largest headers that count as quick are measured in less than half the time of one with many segments."""
    slow = make_jpeg(*[b"\xff\xfe\x00\x02"] * (MAX_SEGMENTS - 10))
    assert measure_quickly(data)
    assert measure_quickly(slow) is None
    quick_s, slow_s = measure_shortest_times(data, slow)
    assert quick_s < slow_s / 2


def measure_shortest_times(*images: bytes) -> list[float]:
    """Return the processor time of the quickest of thirty measurements of each image.

    The images are measured in turn, because the speed of a shared processor changes by a factor of three.
    """
    shortest_s = [math.inf] * len(images)
    for _ in range(30):
        for number, data in enumerate(images):
            started = time.thread_time()
            with suppress(ImageRejected):
                if measure_quickly(data) is None:
                    measure_image(data, DEFAULT_INPUT)
            shortest_s[number] = min(shortest_s[number], time.thread_time() - started)
    return shortest_s


@pytest.mark.parametrize("data", [b"", b"text", b"GIF89a" + bytes(1_000_000)])
def test_what_is_no_image_is_rejected_at_once(data: bytes) -> None:
    """Data of an unsupported format needs no worker thread, because its first bytes are enough to reject it."""
    assert has_quick_header(data)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_plain_jpegs_are_measured_as_by_pillow(mode: str, options: dict[str, object]) -> None:
    """A plain JPEG gets the same size and memory in one pass as by opening it, at every scale, up to 256 KiB."""
    for size in ((1, 1), (200, 150), (2047, 2048), (2048, 2049), (4100, 4096), (4095, 5000)):
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "JPEG", quality=1, **options)
        data = buffer.getvalue()
        expected = measure_image(data, DEFAULT_INPUT) if len(data) <= 256 * 1024 else None
        assert measure_plain_jpeg(data, DEFAULT_INPUT) == expected


def test_photographs_are_measured_as_by_pillow(samples: list[Path]) -> None:
    """A sample photograph of up to 256 KiB gets the same measurements in one pass as by opening it."""
    small = [data for data in (sample.read_bytes() for sample in samples) if len(data) <= 256 * 1024]
    assert len(small) == 3
    for data in small:
        assert measure_plain_jpeg(data, DEFAULT_INPUT) == measure_image(data, DEFAULT_INPUT)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(make_image("PNG"), id="PNG"),
        pytest.param(make_jpeg(jpegs.make_segment(0xE1, bytes(5000))), id="much metadata"),
        pytest.param(b"\xff\xd8" + FRAME + SCAN * 100, id="many scans"),
        pytest.param(b"\xff\xd8" + SCAN, id="no frame"),
        pytest.param(make_jpeg().replace(b"\x08\x00\x08\x00\x08", b"\x0c\x00\x08\x00\x08"), id="12 bits"),
        pytest.param(make_jpeg().replace(b"\x08\x00\x08\x00\x08", b"\x08\x00\x00\x00\x08"), id="no height"),
        pytest.param(make_jpeg().replace(b"\xff\xc0", b"\xff\xc3"), id="lossless"),
        pytest.param(make_jpeg() + bytes(256 * 1024), id="large file"),
    ],
)
def test_other_files_are_not_measured_in_one_pass(data: bytes) -> None:
    """Only small, plain JPEGs are measured in one pass; all other files are left to the complete check."""
    assert measure_plain_jpeg(data, DEFAULT_INPUT) is None
