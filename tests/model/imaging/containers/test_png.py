"""PNGs: what reaches the decoder, and how many chunks are read."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from model.errors import CorruptImage, UnsupportedImage
from model.imaging.bounds import MAX_PIXELS
from model.imaging.containers.png import MAX_CHUNKS, reduce_png
from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.model.imaging.crafted_images import make_png_with, make_small
from tests.support.images import pngs

Encode = Callable[..., bytes]
PROFILE = pngs.make_chunk(b"iCCP", b"p\0\0" + pngs.compress_bomb(1 << 20))
PACKED_TEXT = pngs.make_chunk(b"zTXt", b"k\0\0" + pngs.compress_bomb(1 << 20))
PACKED_UNICODE = pngs.make_chunk(b"iTXt", b"k\0\1\0\0\0" + pngs.compress_bomb(1 << 20))
TEXT = pngs.make_chunk(b"tEXt", b"k\0a")
EXIF = pngs.make_chunk(b"eXIf", b"II*\0\x08\0\0\0" + bytes(6_000))


@pytest.mark.parametrize("extra", [PROFILE, PACKED_TEXT, PACKED_UNICODE, TEXT, EXIF])
@pytest.mark.parametrize("count", [1, 1000])
def test_metadata_never_reaches_the_decoder(extra: bytes, count: int) -> None:
    """Profiles, texts and EXIF data before and after the pixels are dropped."""
    data = make_png_with(extra * count, after=extra)
    assert reduce_png(data, MAX_PIXELS).data == make_small("PNG")
    assert decode_image(data, DEFAULT_INPUT).width == 24


def test_a_header_with_compressed_metadata_is_cheap() -> None:
    """Inspecting 4,500 compressed profiles and texts takes less time than decompressing 50 of them."""
    data, packed = make_png_with((PROFILE + PACKED_TEXT + PACKED_UNICODE) * 1_500), pngs.compress_bomb(1 << 20)
    started = time.thread_time()
    measure_image(data, DEFAULT_INPUT)
    measured = time.thread_time()
    for _ in range(50):
        zlib.decompress(packed)
    assert measured - started < time.thread_time() - measured


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("1", {}),
        ("L", {"transparency": 3}),
        ("P", {"transparency": 3}),
        ("RGB", {"transparency": (1, 2, 3)}),
        ("RGBA", {}),
        ("I;16", {}),
    ],
)
def test_palette_and_transparency_are_kept(encode: Encode, mode: str, options: dict[str, object]) -> None:
    """The reduced file has the same pixels as the whole one, in every mode."""
    image = Image.effect_noise((40, 30), 60).convert(mode)
    if mode == "P":
        image = Image.effect_noise((40, 30), 60).convert("RGB").quantize(60)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "packed " * 20, zip=True)
    data = encode(image, "PNG", pnginfo=text, **options)
    with Image.open(io.BytesIO(data)) as whole, Image.open(io.BytesIO(reduce_png(data, MAX_PIXELS).data)) as reduced:
        assert np.array_equal(np.asarray(reduced.convert("RGBA")), np.asarray(whole.convert("RGBA")))
        assert "Comment" not in reduced.info


def test_only_the_first_frame_of_an_animation_is_kept(encode: Encode) -> None:
    """Later frames and the control chunks of an animated PNG are dropped."""
    first, second = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    data = encode(first, "PNG", save_all=True, append_images=[second])
    reduced = reduce_png(data, MAX_PIXELS).data
    assert b"acTL" in data
    assert b"acTL" not in reduced
    assert np.array_equal(decode_image(data, DEFAULT_INPUT).pixels[0, 0], (255, 0, 0))


def test_the_chunks_of_a_png_are_limited() -> None:
    """A PNG with more than MAX_CHUNKS chunks is rejected; a chunk may take only twelve bytes."""
    with pytest.raises(UnsupportedImage, match="chunks"):
        decode_image(make_png_with(b"", pixel_chunks=MAX_CHUNKS + 1), DEFAULT_INPUT)
    with pytest.raises(UnsupportedImage, match="chunks"):
        decode_image(make_png_with(TEXT * MAX_CHUNKS), DEFAULT_INPUT)
    assert decode_image(make_png_with(TEXT * 100, pixel_chunks=1000), DEFAULT_INPUT).width == 24


def test_a_plain_png_is_not_copied() -> None:
    """A PNG without metadata reaches the decoder as it is."""
    data = make_small("PNG")
    assert reduce_png(data, MAX_PIXELS).data is data


@pytest.mark.parametrize(
    "data",
    [
        pngs.make_png(pngs.make_chunk(b"IDAT", b"")),
        pngs.make_png(pngs.make_header(4, 4, 8, 0)),
        make_png_with(pngs.make_chunk(b"PLTE", bytes(3000))),
    ],
    ids=["no header", "no pixels", "large palette"],
)
def test_incomplete_structures_are_corrupt(data: bytes) -> None:
    """A PNG without a header or pixels, or with more than 256 colours in its palette, is corrupt."""
    with pytest.raises(CorruptImage):
        decode_image(data, DEFAULT_INPUT)
