from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model import errors
from model.imaging.bounds import (
    MAX_JPEG_SCANS,
    MAX_JPEG_SEGMENTS,
    MAX_PIXELS,
    MAX_PNG_CHUNKS,
    MAX_PNG_EXTRAS,
    MAX_TIFF_NUMBERS,
    MAX_TIFF_TAGS,
)
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT

Encode = Callable[..., bytes]
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def small(name: str) -> bytes:
    """A valid image of 24x24, compressed, whose pixels take most of its bytes."""
    image = Image.fromarray(np.random.default_rng(7).integers(0, 256, (24, 24, 3), np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, name, **({"compression": "tiff_lzw"} if name == "TIFF" else {}))
    return buffer.getvalue()


def refusal_of(data: bytes) -> errors.ImageRejected | None:
    """The refusal, or None for an image; any other error is a failure of the test that asks."""
    try:
        decode_image(data, DEFAULT_INPUT, max_pixels=1_000_000)
    except errors.ImageRejected as refusal:
        return refusal
    return None


def webp_canvas(width: int, height: int) -> bytes:
    """An animated WebP of 100 bytes whose canvas is as large as asked."""
    frame = small("WEBP")[12:]
    size = [struct.pack("<I", value - 1)[:3] for value in (width, height)]
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + size[0] + size[1]
    body = b"\0" * 6 + struct.pack("<I", 23)[:3] * 2 + b"\0" * 4 + frame
    chunks = canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + b"ANMF" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def resized_jpeg(width: int, height: int) -> bytes:
    """A JPEG of 24x24 whose header claims another size."""
    data = small("JPEG")
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]


def test_no_bytes_are_no_image() -> None:
    """An empty body has its own refusal."""
    with pytest.raises(errors.EmptyImage):
        decode_image(b"", DEFAULT_INPUT)


@pytest.mark.parametrize("data", [b"GIF89a" + bytes(20), b"BM" + bytes(60), b"%!PS-Adobe-3.0 EPSF", b"\0", b"RIFF"])
def test_other_formats_are_refused_by_content(data: bytes) -> None:
    """What does not begin as one of the four formats is never handed to a decoder."""
    with pytest.raises(errors.UnsupportedImage):
        decode_image(data, DEFAULT_INPUT)


def test_the_byte_cap_comes_first() -> None:
    """One byte too many is refused before the bytes are looked at, and the cap itself is allowed."""
    data = small("PNG")
    with pytest.raises(errors.ImageTooManyBytes):
        decode_image(data, DEFAULT_INPUT, max_bytes=len(data) - 1)
    with pytest.raises(errors.ImageTooManyBytes):
        decode_image(b"\0" * 20_000_001, DEFAULT_INPUT)
    assert decode_image(data, DEFAULT_INPUT, max_bytes=len(data)).width == 24


@pytest.mark.parametrize("name", FORMATS)
def test_the_pixel_cap_is_exact(name: str) -> None:
    """As many pixels as allowed pass, one more does not."""
    assert decode_image(small(name), DEFAULT_INPUT, max_pixels=24 * 24).height == 24
    with pytest.raises(errors.ImageTooManyPixels):
        decode_image(small(name), DEFAULT_INPUT, max_pixels=24 * 24 - 1)


# Beyond the cap that holds for all, and beyond the one of a call.
CLAIMS = pytest.mark.parametrize(("side", "cap"), [(60_000, MAX_PIXELS), (3_000, 1_000_000)])


@CLAIMS
def test_a_png_header_is_judged_without_pixels(make_png: Encode, side: int, cap: int) -> None:
    """A PNG that claims more pixels than allowed and holds none is too large, not corrupt: nothing was decoded."""
    with pytest.raises(errors.ImageTooManyPixels):
        decode_image(make_png((side, side), 8, 2, b"", rows=0), DEFAULT_INPUT, max_pixels=cap)


@CLAIMS
def test_a_jpeg_header_is_judged_without_pixels(side: int, cap: int) -> None:
    """A JPEG that claims more pixels than allowed and breaks off is too large, not corrupt."""
    data = resized_jpeg(side, side)
    with pytest.raises(errors.ImageTooManyPixels):
        decode_image(data[: data.index(b"\xff\xda") + 16], DEFAULT_INPUT, max_pixels=cap)


@CLAIMS
def test_a_tiff_header_is_judged_without_pixels(make_tiff: Encode, side: int, cap: int) -> None:
    """A TIFF that claims more pixels than allowed and holds one byte is too large, not corrupt."""
    with pytest.raises(errors.ImageTooManyPixels):
        decode_image(make_tiff((side, side), [8], b"\0", {}), DEFAULT_INPUT, max_pixels=cap)


def test_a_webp_canvas_is_judged_without_pixels() -> None:
    """A WebP whose canvas is 16000x16000 is too large before its canvas is allocated; a small one passes."""
    assert decode_image(webp_canvas(30, 30), DEFAULT_INPUT).width == 30
    with pytest.raises(errors.ImageTooManyPixels) as refusal:
        decode_image(webp_canvas(16_000, 16_000), DEFAULT_INPUT)
    assert isinstance(refusal.value.__cause__, Image.DecompressionBombError)


@pytest.mark.parametrize("kind", [pytest.param(4, id="LONG"), pytest.param(17, id="SLONG8")])
@pytest.mark.parametrize("side", [32, 8_000])
def test_a_tile_larger_than_its_image_counts_as_pixels(make_tiff: Encode, kind: int, side: int) -> None:
    """A TIFF of 1x1 may not make the decoder allocate a tile beyond the pixel cap, however its size is written."""
    tile = zlib.compress(bytes(32 * 32))
    tags = {259: (3, [8]), 322: (kind, [side]), 323: (kind, [side]), 324: (4, [0]), 325: (4, [len(tile)])}
    data = as_big_tiff(make_tiff((1, 1), [8], tile, tags))
    if side * side <= MAX_PIXELS:
        assert decode_image(data, DEFAULT_INPUT).width == 1
    else:
        with pytest.raises(errors.ImageTooManyPixels, match="8000x8000"):
            decode_image(data, DEFAULT_INPUT)


def as_big_tiff(data: bytes) -> bytes:
    """Rewrite a classic TIFF as BigTIFF, where an entry has room for a value of 8 bytes."""
    (count,) = struct.unpack_from("<H", data, 8)
    end = 16 + 8 + 20 * count + 8
    moved = end - (10 + 12 * count + 4)
    entries = b""
    for index in range(count):
        tag, kind, number, value = struct.unpack_from("<HHII", data, 10 + 12 * index)
        if kind == 17:
            (value,) = struct.unpack_from("<Q", data, value)
        entries += struct.pack("<HHQQ", tag, kind, number, value + moved if tag in {273, 324} else value)
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + entries + bytes(8) + data[10 + 12 * count + 4 :]


def test_a_jpeg_with_many_scans_is_refused_before_decoding(encode: Encode) -> None:
    """Each scan of a JPEG costs a pass over all pixels, so a few bytes may not ask for thousands of them."""
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    own = data.count(b"\xff\xda")
    assert decode_image(data[:-2] + scan * (MAX_JPEG_SCANS - own) + data[-2:], DEFAULT_INPUT).width == 64
    with pytest.raises(errors.UnsupportedImage, match="scans"):
        decode_image(data[:-2] + scan * (MAX_JPEG_SCANS - own + 1) + data[-2:], DEFAULT_INPUT)


def test_a_jpeg_with_countless_segments_is_refused_before_decoding() -> None:
    """Empty segments, four bytes each, may not fill the memory with objects."""
    data = small("JPEG")
    assert decode_image(data[:2] + b"\xff\xfe\0\2" * (MAX_JPEG_SEGMENTS - 20) + data[2:], DEFAULT_INPUT).width == 24
    with pytest.raises(errors.UnsupportedImage, match="segments"):
        decode_image(data[:2] + b"\xff\xfe\0\2" * MAX_JPEG_SEGMENTS + data[2:], DEFAULT_INPUT)


def test_scans_inside_a_thumbnail_or_after_the_end_do_not_count() -> None:
    """Only the scans of the image itself count: a camera may embed other images and append a film."""
    data = small("JPEG")
    many = b"\xff\xda\0\2" * 200
    thumbnail = b"\xff\xe2" + struct.pack(">H", len(many) + 2) + many
    assert decode_image(data[:2] + thumbnail + data[2:] + b"\0\2" + many, DEFAULT_INPUT).width == 24


def test_warnings_of_the_decoder_leave_no_trace(make_tiff: Encode) -> None:
    """What Pillow warns of quotes the caller's file, so it neither reaches the log nor piles up in memory."""
    tags = {tag: (3, [1, 2, 3]) for tag in (266, 274, 284, 296)}
    program = (
        "import sys; from PIL import TiffImagePlugin; from model.imaging.decode import decode_image;"
        "from model.imaging.input_spec import DEFAULT_INPUT;"
        "decode_image(sys.stdin.buffer.read(), DEFAULT_INPUT);"
        "print([key for key in getattr(TiffImagePlugin, '__warningregistry__', {}) if key != 'version'])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=make_tiff((8, 8), [8], bytes(64), tags), capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
    assert done.stderr == b""


@pytest.mark.parametrize("name", FORMATS)
def test_truncation_is_refused_at_every_length(name: str) -> None:
    """A file that ends early is a refusal with a code, or an image where only padding is missing; never a crash."""
    data = small(name)
    answers = [refusal_of(data[:length]) for length in range(0, len(data), 3)]
    refusals = [answer for answer in answers if answer is not None]
    assert all(refusal.code for refusal in refusals)
    assert len(refusals) > 0.9 * len(answers)


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file_is_corrupt(name: str) -> None:
    """An upload that broke off says so."""
    data = small(name)
    with pytest.raises(errors.CorruptImage):
        decode_image(data[: len(data) // 2], DEFAULT_INPUT)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=100, deadline=None)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12))
def test_changed_bytes_are_decoded_or_refused(name: str, changes: list[tuple[float, int]]) -> None:
    """Whatever bytes are overwritten, the answer is an image or a refusal with a code."""
    data = bytearray(small(name))
    for place, value in changes:
        data[int(place * len(data))] = value
    refusal = refusal_of(bytes(data))
    assert refusal is None or refusal.code


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1), inserted=st.binary(max_size=40), removed=st.integers(0, 40))
def test_shifted_bytes_are_decoded_or_refused(name: str, place: float, inserted: bytes, removed: int) -> None:
    """Whatever is cut out or put in, the answer is an image or a refusal with a code."""
    data = small(name)
    start = int(place * len(data))
    refusal = refusal_of(data[:start] + inserted + data[start + removed :])
    assert refusal is None or refusal.code


@settings(max_examples=100, deadline=None)
@given(
    start=st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0+", b"RIFF\0\0\0\0WEBPVP8 "]),
    rest=st.binary(max_size=200),
)
def test_noise_behind_a_signature_is_refused(start: bytes, rest: bytes) -> None:
    """A signature alone makes no image."""
    with pytest.raises(errors.ImageRejected):
        decode_image(start + rest, DEFAULT_INPUT)


def test_every_refusal_has_its_own_code() -> None:
    """Callers can tell the refusals apart by a stable code in snake case."""
    classes = errors.ImageRejected.__subclasses__()
    codes = {error.code for error in classes}
    assert codes == {
        "empty_image",
        "unsupported_image",
        "image_too_many_bytes",
        "image_too_many_pixels",
        "image_too_large_here",
        "unsupported_pixel_format",
        "corrupt_image",
    }
    assert len(codes) == len(classes)


@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_a_side_is_bounded(make_png: Encode, size: tuple[int, int]) -> None:
    """Few pixels in one long row would take gigabytes to scale to a square."""
    with pytest.raises(errors.ImageTooManyPixels, match="side"):
        decode_image(make_png(size, 8, 0, b"\0" * size[0]), DEFAULT_INPUT)


def test_a_tiff_of_countless_strips_is_refused_on_opening(make_tiff: Encode) -> None:
    """A file of 4 MB could claim a million strips, each of which Pillow would make an object of."""
    many = [8] * (MAX_TIFF_NUMBERS + 1)
    with pytest.raises(errors.UnsupportedImage, match="strips"):
        decode_image(make_tiff((4, 4), [8], b"\0" * 16, {258: (3, many)}), DEFAULT_INPUT)


def test_packed_texts_of_a_png_are_bounded(make_png: Encode) -> None:
    """A text of a megabyte is a kilobyte in the file: together they may have one megabyte."""
    text = (b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20)))
    data = make_png((4, 4), 8, 0, b"\0" * 4, chunk=text)
    assert refusal_of(data) is None
    length = struct.unpack(">I", data[33:37])[0] + 12
    with pytest.raises(errors.CorruptImage):
        decode_image(data[:33] + data[33 : 33 + length] * 2 + data[33 + length :], DEFAULT_INPUT)


def png_with(extras: bytes, *, behind: bytes = b"", pixels: int = 1) -> bytes:
    """A PNG with more chunks before and behind its pixels, which are parted into so many."""
    data = small("PNG")
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    idat = chunk(b"IDAT", b"") * (pixels - 1) + data[start:end]
    return data[:start] + extras + idat + behind + data[end:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


PROFILE = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1 << 20), 9))
TEXT = chunk(b"tEXt", b"k\0a")


@pytest.mark.parametrize(
    "data",
    [
        png_with(PROFILE * 2),
        png_with(PROFILE, behind=PROFILE),
        png_with(b"", behind=TEXT * (MAX_PNG_EXTRAS + 1)),
        png_with(TEXT * (MAX_PNG_EXTRAS + 1)),
        png_with(b"", pixels=MAX_PNG_CHUNKS + 1),
    ],
    ids=["profiles", "a profile behind the pixels", "texts behind them", "texts", "pieces of nothing"],
)
def test_the_chunks_of_a_png_are_bounded(data: bytes) -> None:
    """Chunks that cost a megabyte of work or an object each are counted before any is read, wherever they stand."""
    with pytest.raises(errors.UnsupportedImage, match="Save the PNG without metadata"):
        decode_image(data, DEFAULT_INPUT)


def test_a_png_may_have_some_metadata() -> None:
    """One colour profile, some texts and pixels in many pieces are what honest programs write."""
    assert decode_image(png_with(PROFILE + TEXT * 100, behind=TEXT * 100, pixels=1000), DEFAULT_INPUT).width == 24


@pytest.mark.parametrize("big", [True, False])
def test_the_tags_of_a_tiff_are_bounded(big: bool) -> None:
    """How many there are is read before they are: Pillow takes some microseconds for each."""
    entry, count = ("<HHQQ", "<Q") if big else ("<HHII", "<H")
    start = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    for tags, refused in ((MAX_TIFF_TAGS + 1, True), (MAX_TIFF_TAGS, False)):
        data = start + struct.pack(count, tags) + struct.pack(entry, 60_000, 7, 1, 0) * tags + bytes(4096)
        refusal = refusal_of(data)
        assert isinstance(refusal, errors.UnsupportedImage) is refused, refusal


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")])
def test_the_machine_s_want_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Nobody hears that a good image is corrupt because the machine has no memory or no descriptor left."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(type(error)):
        decode_image(small("PNG"), DEFAULT_INPUT)
