"""TIFFs: shared bytes, tiles that are too large, JPEG data that does not fit, and what reaches the decoder."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.errors import CorruptImage, ImageRejected, UnsupportedImage
from model.imaging.bounds import MAX_PIXELS
from model.imaging.containers.tiff import reduce_tiff
from model.imaging.containers.tiff_directory import MAX_BLOCKS, MAX_TAGS
from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.support.images import jpegs, tiffs

Encode = Callable[..., bytes]
FIXTURES = Path(__file__).parents[1] / "fixtures"
RAW, LZW, OLD_JPEG, JPEG, DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 6, 7, 8, 32773, 34925, 50000
COMPRESSIONS = (RAW, 2, 3, 4, LZW, JPEG, DEFLATE, PACKBITS, 32946, LZMA, ZSTD)


def make_strips(
    compression: int, offsets: Sequence[int], lengths: Sequence[int], content: bytes, **options: Any
) -> bytes:
    tags = tiffs.describe_strips((64, len(offsets)), compression, offsets, lengths, 1)
    return tiffs.make_tiff({**tags, **options.pop("tags", {})}, content, **options)


@pytest.mark.parametrize("name", ["512_strips_share_the_same_bytes.tif", "jpeg_strip_taller_than_the_image.tif"])
def test_costly_tiffs_are_rejected_from_their_headers(name: str) -> None:
    """Shared strips and a JPEG that is taller than its strip are rejected before anything is decoded."""
    for read in (measure_image, decode_image):
        with pytest.raises(UnsupportedImage, match="Save"):
            read((FIXTURES / name).read_bytes(), DEFAULT_INPUT)


@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("step", [0, 7], ids=["same", "overlapping"])
def test_strips_that_share_bytes_are_rejected(compression: int, step: int, big: bool) -> None:
    """With any compression, strips that overlap and together are longer than the file are rejected."""
    offsets = [16 + step * index for index in range(128)]
    data = make_strips(compression, offsets, [2_000] * 128, bytes(3_000), big=big)
    with pytest.raises(ImageRejected) as rejection:
        decode_image(data, DEFAULT_INPUT)
    # The length of uncompressed strips follows from their size, whatever the file declares, and is short here.
    assert isinstance(rejection.value, UnsupportedImage) or (compression == RAW and step == 7)


@pytest.mark.parametrize("planes", [1, 3])
def test_tiles_that_share_bytes_are_rejected(planes: int) -> None:
    """Tiles of all planes that together are longer than the file are rejected; without overlap they are decoded."""
    tile = zlib.compress(bytes(32 * 32))
    tags = tiffs.describe_strips((256, 256), DEFLATE, [8], [len(tile)], 256)
    del tags[273], tags[278], tags[279]
    count = 64 * planes
    grid = {322: (tiffs.LONG, [32]), 323: (tiffs.LONG, [32]), 284: (tiffs.SHORT, [2])}
    colours = {258: (tiffs.SHORT, [8] * planes), 277: (tiffs.SHORT, [planes]), 262: (tiffs.SHORT, [planes // 2 + 1])}
    blocks = {324: (tiffs.LONG, [8] * count), 325: (tiffs.LONG, [len(tile)] * count)}
    shared = tiffs.make_tiff({**tags, **grid, **colours, **blocks}, tile)
    with pytest.raises(UnsupportedImage, match="share bytes"):
        decode_image(shared, DEFAULT_INPUT)
    blocks = {324: (tiffs.LONG, [8 + len(tile) * index for index in range(count)]), 325: blocks[325]}
    assert (
        decode_image(tiffs.make_tiff({**tags, **grid, **colours, **blocks}, tile * count), DEFAULT_INPUT).width == 256
    )


@pytest.mark.parametrize(
    "tags",
    [
        {273: (tiffs.LONG, [8, 8_000_000])},
        {279: (tiffs.LONG, [64, 8_000_000])},
        {273: (tiffs.LONG, [8])},
        {279: (tiffs.LONG, [64])},
        {278: (tiffs.LONG, [0])},
        {256: (tiffs.LONG, [0])},
    ],
    ids=["offset", "length", "few offsets", "few lengths", "no rows", "no width"],
)
def test_blocks_outside_the_file_are_corrupt(tags: dict[int, Any]) -> None:
    """Strips outside the file, missing strips, and a size of 0 are corrupt."""
    with pytest.raises(CorruptImage):
        decode_image(make_strips(LZW, [8, 8], [10, 10], bytes(64), tags=tags), DEFAULT_INPUT)


@pytest.mark.parametrize(("bits", "samples"), [(2**32 - 1, 2**32 - 1), (8, 4_097), (65, 1)])
@pytest.mark.parametrize("compression", [RAW, LZW])
def test_impossible_samples_are_rejected(bits: int, samples: int, compression: int) -> None:
    """More than 4,096 samples per pixel or 64 bits per sample are rejected, even if their product would overflow."""
    tags = {258: (tiffs.LONG, [bits]), 277: (tiffs.LONG, [samples])}
    data = make_strips(compression, [8], [64], bytes(64), tags=tags)
    with pytest.raises(CorruptImage):
        reduce_tiff(data, MAX_PIXELS)
    for read in (measure_image, decode_image):
        with pytest.raises(ImageRejected):
            read(data, DEFAULT_INPUT)


def test_arrays_outside_the_file_are_corrupt() -> None:
    """A TIFF whose array of offsets ends outside the file is corrupt."""
    data = make_strips(LZW, [8] * 4, [8] * 4, bytes(64))
    entry = data.index(struct.pack("<HHI", 273, tiffs.LONG, 4)) + 8
    with pytest.raises(CorruptImage):
        decode_image(data[:entry] + struct.pack("<I", len(data) - 8) + data[entry + 4 :], DEFAULT_INPUT)


@pytest.mark.parametrize("lengths", [None, [0]], ids=["missing", "zero"])
@pytest.mark.parametrize("compression", [RAW, DEFLATE])
def test_one_strip_without_a_length_is_read_to_the_end(compression: int, lengths: list[int] | None) -> None:
    """A single strip without a length, as old tools write it, is read to the end of the file."""
    content = bytes(64) if compression == RAW else zlib.compress(bytes(64))
    tags: dict[int, Any] = tiffs.describe_strips((64, 1), compression, [8], lengths or [], 1)
    if lengths is None:
        del tags[279]
    assert decode_image(tiffs.make_tiff(tags, content), DEFAULT_INPUT).width == 64


def test_padding_of_tiles_is_limited() -> None:
    """A narrow image with thousands of wide tiles is rejected, because most of the decoded pixels would be padding."""
    tags = tiffs.describe_strips((1, 60_000), DEFLATE, [8], [8], 1)
    tiles = {322: (tiffs.LONG, [16_384]), 323: (tiffs.LONG, [16])}
    blocks = {324: (tiffs.LONG, [8] * 3_750), 325: (tiffs.LONG, [8] * 3_750)}
    with pytest.raises(UnsupportedImage, match="do not match"):
        decode_image(tiffs.make_tiff({**tags, **tiles, **blocks}, bytes(30_000)), DEFAULT_INPUT)


def make_jpeg_strip(*parts: bytes, rows: int = 16) -> bytes:
    content = jpegs.make_jpeg(jpegs.make_tables(), *parts)
    return tiffs.make_tiff(tiffs.describe_strips((64, 16), JPEG, [8], [len(content)], rows), content)


@pytest.mark.parametrize(
    "parts",
    [
        [jpegs.make_frame(jpegs.PROGRESSIVE, 64, 16), jpegs.make_scan()],
        [jpegs.make_frame(jpegs.ARITHMETIC, 64, 16), jpegs.make_scan()],
        [jpegs.make_frame(jpegs.LOSSLESS, 64, 16), jpegs.make_scan()],
        [jpegs.make_frame(jpegs.BASELINE, 64, 65_500), jpegs.make_scan()],
        [jpegs.make_frame(jpegs.BASELINE, 65_500, 16), jpegs.make_scan()],
        [jpegs.make_frame(jpegs.BASELINE, 64, 16), jpegs.make_scan() * 2],
    ],
    ids=["progressive", "arithmetic", "lossless", "taller", "wider", "scans"],
)
def test_jpeg_data_that_does_not_fit_its_strip_is_rejected(parts: list[bytes]) -> None:
    """The JPEG of a strip must be baseline, not larger than the strip, and have one scan for each component."""
    with pytest.raises(UnsupportedImage, match="contains JPEG data"):
        decode_image(make_jpeg_strip(*parts), DEFAULT_INPUT)
    fitting = make_jpeg_strip(jpegs.make_frame(jpegs.BASELINE, 64, 16), jpegs.make_scan(content=bytes(64)))
    assert decode_image(fitting, DEFAULT_INPUT).height == 16


def test_every_jpeg_strip_is_checked() -> None:
    """A strip in the middle is checked like the first one."""
    fitting, tall = (
        jpegs.make_jpeg(jpegs.make_tables(), jpegs.make_frame(jpegs.BASELINE, 64, rows), jpegs.make_scan(content=b"\0"))
        for rows in (8, 4_000)
    )
    contents = [fitting, tall, fitting]
    offsets = [8 + len(b"".join(contents[:index])) for index in range(3)]
    tags = tiffs.describe_strips((64, 24), JPEG, offsets, list(map(len, contents)), 8)
    with pytest.raises(UnsupportedImage, match="64x4000"):
        measure_image(tiffs.make_tiff(tags, b"".join(contents)), DEFAULT_INPUT)


@pytest.mark.parametrize(
    "compression",
    ["raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd", "group3", "group4"],
)
@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
def test_the_rebuilt_file_has_the_same_pixels(encode: Encode, compression: str, big: bool) -> None:
    """Metadata and later images are dropped; the pixels of the first image stay the same with every compression."""
    exif = Image.Exif()
    exif[0x010E] = "described" * 100
    mode = "1" if compression.startswith("group") else "RGB"
    image = Image.effect_noise((200, 300), 60).convert(mode)
    options: dict[str, Any] = {"compression": compression, "exif": exif, "save_all": True}
    data = encode(
        image, "TIFF", append_images=[Image.new(mode, (9, 9))], icc_profile=bytes(999), big_tiff=big, **options
    )
    reduced = reduce_tiff(data, MAX_PIXELS).data
    assert b"described" not in reduced
    with Image.open(io.BytesIO(data)) as expected, Image.open(io.BytesIO(reduced)) as rebuilt:
        assert np.array_equal(np.asarray(rebuilt), np.asarray(expected))
        assert getattr(rebuilt, "n_frames", 1) == 1
        assert "icc_profile" not in rebuilt.info


@pytest.mark.parametrize("following", [8, 2**31], ids=["loop", "outside"])
def test_later_directories_are_never_read(following: int) -> None:
    """A chain of directories that loops or leaves the file is ignored, and so are pointers to other directories."""
    content = zlib.compress(bytes(64))
    pointers = {330: (tiffs.LONG, [8] * 100), 34665: (tiffs.LONG, [8]), 34853: (tiffs.LONG, [2**31])}
    data = make_strips(DEFLATE, [8], [len(content)], content, tags=pointers, following=following)
    assert decode_image(data, DEFAULT_INPUT).height == 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [1, 3])
def test_uncompressed_strips_become_one_for_each_plane(order: str, planes: int) -> None:
    """Uncompressed strips in any order become one strip per plane with the same pixels."""
    pixels = np.random.default_rng(4).integers(0, 256, (planes, 40, 64), np.uint8)
    backwards = b"".join(row.tobytes() for plane in pixels for row in plane[::-1])
    offsets = [8 + 64 * (40 * plane + 39 - row) for plane in range(planes) for row in range(40)]
    colours = {258: (tiffs.SHORT, [8] * planes), 277: (tiffs.SHORT, [planes]), 262: (tiffs.SHORT, [planes // 2 + 1])}
    tags = tiffs.describe_strips((64, 40), RAW, offsets, [64] * 40 * planes, 1)
    data = tiffs.make_tiff({**tags, **colours, 284: (tiffs.SHORT, [2])}, backwards, order=order)
    with Image.open(io.BytesIO(reduce_tiff(data, MAX_PIXELS).data)) as image:
        assert len(image.tile) == planes
        assert np.array_equal(np.atleast_3d(np.asarray(image)), np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize("compression", [RAW, LZW])
def test_strips_that_are_many_for_the_file_are_rejected(compression: int) -> None:
    """Thousands of tiny strips are rejected, because they take more memory than is reserved for their file."""
    tags = tiffs.describe_strips((16, 20_000), compression, [8] * 20_000, [16] * 20_000, 1)
    with pytest.raises(UnsupportedImage, match="strips"):
        measure_image(tiffs.make_tiff(tags, bytes(320_000)), DEFAULT_INPUT)


def test_the_strips_of_a_tiff_are_limited() -> None:
    """A TIFF with more than MAX_BLOCKS strips, over all planes, is rejected."""
    many = [8] * (MAX_BLOCKS + 1)
    with pytest.raises(UnsupportedImage, match="strips"):
        decode_image(make_strips(LZW, many, [0], bytes(16)), DEFAULT_INPUT)
    planes = {273: (tiffs.LONG, [8]), 284: (tiffs.SHORT, [2]), 277: (tiffs.SHORT, [60_000])}
    with pytest.raises(UnsupportedImage, match="strips"):
        decode_image(make_strips(LZW, [8], [8], bytes(16), tags=planes), DEFAULT_INPUT)


@pytest.mark.parametrize(("strips", "comments"), [(8_193, 0), (8, 16)], ids=["strips", "segments"])
def test_the_jpeg_data_of_a_tiff_has_few_parts(strips: int, comments: int) -> None:
    """The number of JPEG strips and of segments in each is limited, because each must be checked."""
    frame, scan = jpegs.make_frame(jpegs.BASELINE, 64, 1), jpegs.make_scan(content=b"\0")
    content = jpegs.make_jpeg(jpegs.make_tables(), b"\xff\xfe\0\2" * comments, frame, scan)
    offsets = [8 + len(content) * index for index in range(strips)]
    data = tiffs.make_tiff(
        tiffs.describe_strips((64, strips), JPEG, offsets, [len(content)] * strips, 1), content * strips
    )
    with pytest.raises(UnsupportedImage, match=r"or more segments|of JPEG data"):
        measure_image(data, DEFAULT_INPUT)


@pytest.mark.parametrize("big", [True, False])
def test_the_tags_of_a_tiff_are_limited(big: bool) -> None:
    """A TIFF with more than MAX_TAGS tags is unsupported."""
    entry, count = ("<HHQQ", "<Q") if big else ("<HHII", "<H")
    start = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    for tags, error in ((MAX_TAGS + 1, UnsupportedImage), (MAX_TAGS, CorruptImage)):
        data = start + struct.pack(count, tags) + struct.pack(entry, 60_000, 7, 1, 0) * tags + bytes(4096)
        with pytest.raises(error):
            decode_image(data, DEFAULT_INPUT)
