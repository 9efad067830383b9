"""Limits on scans, segments, chunks, tags and texts, which cost work or memory beyond the file's size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from model import errors
from model.imaging.bounds import (
    MAX_JPEG_SCANS,
    MAX_JPEG_SEGMENTS,
    MAX_PNG_CHUNKS,
    MAX_PNG_EXTRAS,
    MAX_TIFF_NUMBERS,
    MAX_TIFF_TAGS,
)
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.model.imaging.crafted_images import get_rejection, make_png_chunk, make_png_with, make_small

Encode = Callable[..., bytes]
PROFILE = make_png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1 << 20), 9))
TEXT = make_png_chunk(b"tEXt", b"k\0a")


def test_the_scans_of_a_jpeg_are_limited(encode: Encode) -> None:
    """A JPEG with more scans is rejected: each costs a pass over all pixels."""
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    scans = data.count(b"\xff\xda")
    assert decode_image(data[:-2] + scan * (MAX_JPEG_SCANS - scans) + data[-2:], DEFAULT_INPUT).width == 64
    with pytest.raises(errors.UnsupportedImage, match="scans"):
        decode_image(data[:-2] + scan * (MAX_JPEG_SCANS - scans + 1) + data[-2:], DEFAULT_INPUT)


def test_the_segments_of_a_jpeg_are_limited() -> None:
    """A JPEG with more segments is rejected: each becomes an object and may take only four bytes."""
    data = make_small("JPEG")
    assert decode_image(data[:2] + b"\xff\xfe\0\2" * (MAX_JPEG_SEGMENTS - 20) + data[2:], DEFAULT_INPUT).width == 24
    with pytest.raises(errors.UnsupportedImage, match="segments"):
        decode_image(data[:2] + b"\xff\xfe\0\2" * MAX_JPEG_SEGMENTS + data[2:], DEFAULT_INPUT)


def test_scans_inside_a_thumbnail_or_after_the_end_do_not_count() -> None:
    """Only the scans of the image itself count: cameras embed thumbnails and append videos."""
    data = make_small("JPEG")
    many = b"\xff\xda\0\2" * 200
    thumbnail = b"\xff\xe2" + struct.pack(">H", len(many) + 2) + many
    assert decode_image(data[:2] + thumbnail + data[2:] + b"\0\2" + many, DEFAULT_INPUT).width == 24


@pytest.mark.parametrize(
    "data",
    [
        make_png_with(PROFILE * 2),
        make_png_with(PROFILE, after=PROFILE),
        make_png_with(b"", after=TEXT * (MAX_PNG_EXTRAS + 1)),
        make_png_with(TEXT * (MAX_PNG_EXTRAS + 1)),
        make_png_with(b"", pixel_chunks=MAX_PNG_CHUNKS + 1),
    ],
    ids=["profiles", "a profile after the pixels", "texts after the pixels", "texts", "empty pixel chunks"],
)
def test_the_chunks_of_a_png_are_limited(data: bytes) -> None:
    """Chunks are counted before any is read, wherever they are: each costs up to a megabyte of work, or an object."""
    with pytest.raises(errors.UnsupportedImage, match="Save the PNG without metadata"):
        decode_image(data, DEFAULT_INPUT)


def test_a_png_may_have_some_metadata() -> None:
    """A PNG with one colour profile, some texts and pixels in many chunks is decoded."""
    data = make_png_with(PROFILE + TEXT * 100, after=TEXT * 100, pixel_chunks=1000)
    assert decode_image(data, DEFAULT_INPUT).width == 24


def test_the_compressed_texts_of_a_png_are_limited(make_png: Encode) -> None:
    """All texts together may expand to one megabyte, which is a kilobyte in the file."""
    text = (b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20)))
    data = make_png((4, 4), 8, 0, b"\0" * 4, chunk=text)
    assert get_rejection(data) is None
    length = struct.unpack(">I", data[33:37])[0] + 12
    with pytest.raises(errors.CorruptImage):
        decode_image(data[:33] + data[33 : 33 + length] * 2 + data[33 + length :], DEFAULT_INPUT)


def test_the_strips_of_a_tiff_are_limited(make_tiff: Encode) -> None:
    """A TIFF with more strips is rejected when it is opened: Pillow makes an object of each."""
    many = [8] * (MAX_TIFF_NUMBERS + 1)
    with pytest.raises(errors.UnsupportedImage, match="strips"):
        decode_image(make_tiff((4, 4), [8], b"\0" * 16, {258: (3, many)}), DEFAULT_INPUT)


@pytest.mark.parametrize("big", [True, False])
def test_the_tags_of_a_tiff_are_limited(big: bool) -> None:
    """The number of tags is checked before Pillow reads them, which takes microseconds for each."""
    entry, count = ("<HHQQ", "<Q") if big else ("<HHII", "<H")
    start = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    for tags, rejected in ((MAX_TIFF_TAGS + 1, True), (MAX_TIFF_TAGS, False)):
        data = start + struct.pack(count, tags) + struct.pack(entry, 60_000, 7, 1, 0) * tags + bytes(4096)
        rejection = get_rejection(data)
        assert isinstance(rejection, errors.UnsupportedImage) is rejected, rejection
