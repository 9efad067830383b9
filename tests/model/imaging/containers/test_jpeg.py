"""JPEGs: limits on scans, work and tables, and what reaches the decoder."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import CorruptImage, UnsupportedImage
from model.imaging.bounds import MAX_PIXELS
from model.imaging.containers.jpeg import MAX_SEGMENTS, read_jpeg
from model.imaging.containers.jpeg_work import MAX_SCANS, MAX_TABLE_BYTES, reduce_jpeg
from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.model.imaging.crafted_images import make_small
from tests.support.images import jpegs

Encode = Callable[..., bytes]
FIXTURES = Path(__file__).parents[1] / "fixtures"
# The scans of mozjpeg for YCbCr with trellis quantisation: components, first and last coefficient, Ah and Al.
MOZJPEG_SCANS = [
    ((1, 2, 3), 0, 0, 0x00),
    *[
        scan
        for component in (1, 2, 3)
        for scan in (
            ((component,), 1, 8, 0x02),
            ((component,), 9, 63, 0x02),
            ((component,), 1, 63, 0x21),
            ((component,), 1, 63, 0x10),
        )
    ],
]
LIBJPEG_SCANS = [
    ((1, 2, 3), 0, 0, 0x01),
    ((1,), 1, 5, 0x02),
    ((3,), 1, 63, 0x01),
    ((2,), 1, 63, 0x01),
    ((1,), 6, 63, 0x02),
    ((1,), 1, 63, 0x21),
    ((1, 2, 3), 0, 0, 0x10),
    ((3,), 1, 63, 0x10),
    ((2,), 1, 63, 0x10),
    ((1,), 1, 63, 0x10),
]


def make_progressive(process: int, size: tuple[int, int], scans: int, samplings: tuple[int, ...] = (0x11,)) -> bytes:
    frame = jpegs.make_frame(process, *size, samplings)
    dc = jpegs.make_scan(range(1, len(samplings) + 1), (0, 0))
    return jpegs.make_jpeg(jpegs.make_tables(), frame, dc, jpegs.make_scan((1,), (1, 63)) * (scans - 1))


def test_many_arithmetic_scans_are_too_much_work() -> None:
    """A JPEG of 600 bytes with 50 arithmetic scans over 50 megapixels is rejected from its headers."""
    data = (FIXTURES / "arithmetic_progressive_50_scans.jpg").read_bytes()
    for read in (measure_image, decode_image):
        with pytest.raises(UnsupportedImage, match="50 scans"):
            read(data, DEFAULT_INPUT)


@pytest.mark.parametrize(
    ("process", "scans", "size"),
    [
        (jpegs.ARITHMETIC_PROGRESSIVE, 6, (7000, 7000)),
        (jpegs.ARITHMETIC_PROGRESSIVE, 50, (2400, 2400)),
        (jpegs.ARITHMETIC, 5, (7000, 7000)),
        (jpegs.PROGRESSIVE, 40, (7000, 7000)),
    ],
)
def test_work_grows_with_scans_pixels_and_coding(process: int, scans: int, size: tuple[int, int]) -> None:
    """Scans that are too much work for a large image are accepted in one with a hundredth of the pixels."""
    small = (size[0] // 10, size[1] // 10)
    assert reduce_jpeg(make_progressive(process, small, scans), MAX_PIXELS).data
    with pytest.raises(UnsupportedImage, match="too long"):
        reduce_jpeg(make_progressive(process, size, scans), MAX_PIXELS)


@pytest.mark.parametrize("scans", [LIBJPEG_SCANS, MOZJPEG_SCANS], ids=["libjpeg-turbo", "mozjpeg"])
@pytest.mark.parametrize("samplings", [(0x11, 0x11, 0x11), (0x22, 0x11, 0x11)], ids=["444", "420"])
def test_ordinary_progressive_scans_are_accepted_up_to_the_pixel_limit(
    scans: list[tuple[tuple[int, ...], int, int, int]], samplings: tuple[int, ...]
) -> None:
    """An image of 50 megapixels with the scans that common encoders write is not too much work."""
    parts = [jpegs.make_scan(components, (first, last), bits) for components, first, last, bits in scans]
    frame = jpegs.make_frame(jpegs.PROGRESSIVE, 10_000, 5_000, samplings)
    assert reduce_jpeg(jpegs.make_jpeg(jpegs.make_tables(), frame, *parts), MAX_PIXELS).buffer_bytes > 0


@pytest.mark.parametrize("samplings", [(0x11,), (0x11,) * 3, (0x11,) * 4])
def test_one_arithmetic_scan_is_accepted(samplings: tuple[int, ...]) -> None:
    """A sequential JPEG of 40 megapixels with arithmetic coding is accepted."""
    frame = jpegs.make_frame(jpegs.ARITHMETIC, 8_000, 5_000, samplings)
    scan = jpegs.make_scan(range(1, len(samplings) + 1))
    assert reduce_jpeg(jpegs.make_jpeg(jpegs.make_tables(), frame, scan), MAX_PIXELS).data


def test_the_scans_of_a_jpeg_are_limited(encode: Encode) -> None:
    """A JPEG with more than MAX_SCANS scans is rejected, because each costs a pass over all pixels."""
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    scans = data.count(b"\xff\xda")
    assert decode_image(data[:-2] + scan * (MAX_SCANS - scans) + data[-2:], DEFAULT_INPUT).width == 64
    with pytest.raises(UnsupportedImage, match="scans"):
        decode_image(data[:-2] + scan * (MAX_SCANS - scans + 1) + data[-2:], DEFAULT_INPUT)


def test_the_segments_of_a_jpeg_are_limited() -> None:
    """A JPEG with MAX_SEGMENTS segments is rejected; a segment may take only four bytes."""
    data = make_small("JPEG")
    assert decode_image(data[:2] + b"\xff\xfe\0\2" * (MAX_SEGMENTS - 20) + data[2:], DEFAULT_INPUT).width == 24
    with pytest.raises(UnsupportedImage, match="segments"):
        decode_image(data[:2] + b"\xff\xfe\0\2" * MAX_SEGMENTS + data[2:], DEFAULT_INPUT)


def test_the_tables_of_a_jpeg_are_limited() -> None:
    """A JPEG with more than MAX_TABLE_BYTES of quantisation tables is rejected."""
    data = make_small("JPEG")
    tables = jpegs.make_segment(0xDB, (b"\0" + b"\1" * 64) * 1000)
    with pytest.raises(UnsupportedImage, match="tables"):
        decode_image(data[:2] + tables * (MAX_TABLE_BYTES // len(tables) + 1) + data[2:], DEFAULT_INPUT)


def test_scans_inside_a_thumbnail_or_after_the_end_do_not_count() -> None:
    """Only the scans of the image itself count: cameras embed thumbnails and append videos."""
    data = make_small("JPEG")
    many = b"\xff\xda\0\2" * 200
    thumbnail = b"\xff\xe2" + struct.pack(">H", len(many) + 2) + many
    assert decode_image(data[:2] + thumbnail + data[2:] + b"\0\2" + many, DEFAULT_INPUT).width == 24


def test_metadata_and_junk_before_the_pixels_never_reach_the_decoder(encode: Encode) -> None:
    """EXIF data, profiles, comments and bytes between segments are dropped; the pixels stay the same."""
    exif = Image.Exif()
    exif[0x010E] = "described" * 100
    image = Image.effect_noise((48, 40), 60).convert("RGB")
    plain = encode(image, "JPEG")
    full = encode(image, "JPEG", exif=exif, icc_profile=bytes(100_000), comment=b"said", xmp=b"<x/>")
    junk = full[:2] + b"\0junk\xff\0" * 1_000 + full[2:]
    for data in (full, junk):
        reduced = reduce_jpeg(data, MAX_PIXELS).data
        assert len(reduced) == len(plain)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(reduced))), np.asarray(Image.open(io.BytesIO(plain))))


def test_a_plain_jpeg_is_not_copied() -> None:
    """A JPEG without metadata reaches the decoder as it is."""
    data = make_small("JPEG")
    assert reduce_jpeg(data, MAX_PIXELS).data is data


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_structure_of_a_jpeg(encode: Encode, mode: str) -> None:
    """The size, the precision, the blocks of each component and the first scan are those that the encoder wrote.

    Pillow samples the first component twice as densely as the others, in both directions.
    """
    image = Image.new(mode, (100, 50))
    structure = read_jpeg(encode(image, "JPEG", subsampling=2, progressive=True))
    blocks = [component.blocks for component in structure.frame.components]
    assert (structure.frame.width, structure.frame.height, structure.frame.precision) == (100, 50, 8)
    assert blocks == [14 * 8, *[7 * 4] * (len(image.getbands()) - 1)]
    assert structure.scans[0].coefficients == 1


@pytest.mark.parametrize(
    "data",
    [
        jpegs.make_jpeg(jpegs.make_tables()),
        jpegs.make_jpeg(jpegs.make_frame(jpegs.BASELINE, 8, 8)),
        jpegs.make_jpeg(jpegs.make_scan()),
        jpegs.make_jpeg(jpegs.make_segment(jpegs.BASELINE, b"\x08\0\x08\0\x08\3\1\x11\0"), jpegs.make_scan()),
        jpegs.make_jpeg(jpegs.make_frame(jpegs.BASELINE, 8, 8), jpegs.make_segment(0xDA, b"\4\1\0")),
    ],
    ids=["tables", "frame alone", "scan alone", "short frame", "short scan"],
)
def test_incomplete_structures_are_corrupt(data: bytes) -> None:
    """A JPEG without a complete frame header and scan header is corrupt."""
    with pytest.raises(CorruptImage):
        reduce_jpeg(data, MAX_PIXELS)
