"""WebPs: what reaches the decoder, and the memory of lossless pixels."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from model.errors import CorruptImage, UnsupportedImage
from model.imaging.bounds import MAX_PIXELS
from model.imaging.containers.vp8l import MAX_GROUPS
from model.imaging.containers.webp import MAX_CHUNKS, reduce_webp
from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.model.imaging.crafted_images import make_small
from tests.support.images import webps

Encode = Callable[..., bytes]
GROUP_BYTES = 5_700  # the memory of libwebp for a group of one-symbol codes


def make_picture() -> Image.Image:
    ramp = np.linspace(0, 255, 120 * 80, dtype=np.uint8).reshape(80, 120)
    noise = np.random.default_rng(5).integers(0, 256, (80, 120), np.uint8)
    return Image.fromarray(np.dstack([ramp, ramp[::-1], noise // 8, 255 - ramp // 2]))


@pytest.mark.parametrize("groups", [1, 900, 5_000])
def test_the_memory_of_prefix_codes_is_estimated(groups: int) -> None:
    """The estimate includes the prefix codes of a lossless WebP, up to 30 MB in a file of 25 KB."""
    data = webps.make_webp(webps.make_chunk(b"VP8L", webps.make_grouped_pixels(320, 320, groups)))
    plain = measure_image(make_small("WEBP"), DEFAULT_INPUT).bytes
    assert measure_image(data, DEFAULT_INPUT).bytes - plain > groups * GROUP_BYTES
    assert decode_image(data, DEFAULT_INPUT).width == 320


def test_the_memory_of_a_compressed_alpha_channel_is_estimated(encode: Encode) -> None:
    """The prefix codes of an alpha channel count as well, in a still image and in a frame of an animation."""
    lossy = encode(Image.new("RGB", (256, 256), "grey"), "WEBP")[12:]
    alpha = webps.make_chunk(b"ALPH", b"\1" + webps.make_grouped_pixels(256, 256, 4_000, with_header=False))
    still = webps.make_webp(webps.make_extended_header(0x10, 256, 256), alpha, lossy)
    moving = webps.make_webp(
        webps.make_extended_header(0x12, 256, 256),
        webps.make_chunk(b"ANIM", bytes(6)),
        webps.make_frame(256, 256, alpha, lossy),
    )
    for data in (still, moving):
        assert reduce_webp(data, MAX_PIXELS).buffer_bytes > 4_000 * GROUP_BYTES
        assert decode_image(data, DEFAULT_INPUT).width == 256


@pytest.mark.parametrize("method", [0, 3, 6])
@pytest.mark.parametrize("colours", [None, 200, 12, 2])
def test_honest_lossless_images_reserve_little_more(encode: Encode, method: int, colours: int | None) -> None:
    """With every transform that the encoder uses, the prefix codes of a photo are estimated below a megabyte."""
    picture = make_picture().convert("RGB").resize((300, 200))
    image = picture if colours is None else picture.quantize(colours).convert("RGB")
    data = encode(image, "WEBP", lossless=True, method=method, quality=60)
    assert 0 < reduce_webp(data, MAX_PIXELS).buffer_bytes < 1_000_000


def test_the_groups_of_prefix_codes_are_limited() -> None:
    """A lossless WebP with more groups of prefix codes than any encoder makes is rejected."""
    data = webps.make_webp(webps.make_chunk(b"VP8L", webps.make_grouped_pixels(480, 480, MAX_GROUPS + 1)))
    with pytest.raises(UnsupportedImage, match="groups"):
        measure_image(data, DEFAULT_INPUT)


def test_too_detailed_transforms_are_rejected() -> None:
    """A lossless WebP whose entropy image has more than 65,536 coded pixels is rejected."""
    data = webps.make_webp(webps.make_chunk(b"VP8L", webps.make_grouped_pixels(1_100, 1_100, 256)))
    with pytest.raises(UnsupportedImage, match="too detailed"):
        measure_image(data, DEFAULT_INPUT)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"quality": 50, "alpha_quality": 40}])
def test_metadata_and_later_frames_never_reach_the_decoder(encode: Encode, options: dict[str, object]) -> None:
    """Profile, EXIF data, XMP, unknown chunks and later frames are dropped; the pixels stay the same."""
    picture, exif = make_picture(), Image.Exif()
    exif[0x010E] = "described"
    data = encode(picture, "WEBP", exif=exif, icc_profile=bytes(3_000), xmp=b"<x/>", **options)
    moving = encode(picture, "WEBP", save_all=True, append_images=[picture.rotate(180)], exif=exif, **options)
    for whole in (data, moving, data + webps.make_chunk(b"junk", b"x") * 2_000):
        reduced = reduce_webp(whole, MAX_PIXELS).data
        assert not any(kind in reduced for kind in (b"ICCP", b"EXIF", b"XMP ", b"junk"))
        assert reduced.count(b"ANMF") == (whole is moving)
        with Image.open(io.BytesIO(whole)) as expected, Image.open(io.BytesIO(reduced)) as image:
            assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_a_plain_webp_is_not_copied() -> None:
    """A WebP without metadata reaches the decoder as it is."""
    data = make_small("WEBP")
    assert reduce_webp(data, MAX_PIXELS).data is data


def test_the_chunks_before_the_pixels_are_limited() -> None:
    """A WebP with thousands of chunks before its pixels is rejected: libwebp keeps an object for each."""
    data = make_small("WEBP")
    with pytest.raises(UnsupportedImage, match="chunks"):
        decode_image(data[:12] + webps.make_chunk(b"junk", b"") * MAX_CHUNKS + data[12:], DEFAULT_INPUT)


@pytest.mark.parametrize("length", [0, 8, 30])
def test_incomplete_structures_are_corrupt(length: int) -> None:
    """A WebP without pixels is corrupt, and so is one whose lossless pixels end before their prefix codes."""
    pixels = webps.make_grouped_pixels(64, 64, 16)[:length]
    chunks = [webps.make_chunk(b"VP8L", pixels)] if length else [webps.make_extended_header(0, 4, 4)]
    with pytest.raises(CorruptImage):
        decode_image(webps.make_webp(*chunks), DEFAULT_INPUT)
