"""16-bit images that use part of their range are decoded to the same picture as their 8-bit twins."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from model.errors import UnsupportedPixelFormat
from model.imaging.decode import DecodedImage, decode_image
from model.imaging.input_spec import InputSpec
from tests.support.images import pngs

Encode = Callable[..., bytes]
HEIGHT, WIDTH = 30, 40
SPEC = InputSpec(WIDTH, HEIGHT)
SCALINGS = {
    255: "8_to_8",
    1_023: "10_to_8",
    2_047: "11_to_8",
    4_095: "12_to_8",
    10_000: "reflectance_to_8",
    16_383: "14_to_8",
    65_535: "16_to_8",
}
KINDS: dict[str, dict[str, Any]] = {
    "grey": {"photometric": "minisblack"},
    "three greys": {"photometric": "minisblack", "extrasamples": ["unspecified"] * 2},
    "rgb": {"photometric": "rgb"},
    "rgb+alpha": {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    "rgb+x": {"photometric": "rgb", "extrasamples": ["unspecified"]},
}
BANDS = {"grey": 1, "three greys": 3, "rgb": 3, "rgb+alpha": 4, "rgb+x": 4}


def draw(bands: int) -> NDArray[np.uint8]:
    """A smooth picture, uint8 [height, width, bands], in which no two bands are equal and white occurs."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [(np.sin(x / (5 + band)) + np.cos(y / (4 + band)) + 2) / 4 for band in range(bands)]
    picture = (np.stack(waves, axis=-1) * 254 + 1).astype(np.uint8)
    picture[10:14, 10:14] = 255
    return picture


def deepen(picture: NDArray[np.uint8], white: int) -> NDArray[np.uint16]:
    """The same picture as 16-bit samples, scaled so that 255 becomes `white`."""
    return np.round(picture * (white / 255)).astype(np.uint16)


def write_tiff(samples: NDArray[Any], kind: str = "rgb", **options: Any) -> bytes:
    if BANDS[kind] == 1:
        samples = samples[..., 0]
    elif options.get("planarconfig") == "separate":
        samples = np.moveaxis(samples, 2, 0)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, **KINDS[kind], **options)
    return buffer.getvalue()


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, SPEC)


def assert_same_picture(deep: bytes, eight: bytes, scaling: str) -> None:
    """Assert that pixels differ by at most 1, even where they are transparent."""
    decoded = decode(deep)
    assert (decoded.bit_depth, decoded.scaling) == (16, scaling)
    assert np.abs(decoded.pixels.astype(int) - decode(eight).pixels).max() <= 1


@pytest.mark.parametrize("white", SCALINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_deep_tiff_has_the_pixels_of_its_eight_bit_twin(kind: str, white: int) -> None:
    """A picture stored with the range of any sensor decodes to within one level of its 8-bit original."""
    picture = draw(BANDS[kind])
    assert_same_picture(write_tiff(deepen(picture, white), kind), write_tiff(picture, kind), SCALINGS[white])


@pytest.mark.parametrize(("compression", "predictor"), [(None, False), ("lzw", False), ("zstd", False), ("lzw", True)])
def test_every_layout_is_scaled(compression: str | None, predictor: bool) -> None:
    """Byte order, planes, strips, tiles, compression, predictor and orientation make no difference."""
    refused = 0
    layouts = itertools.product(KINDS, "<>", ("contig", "separate"), ({"tile": (16, 16)}, {"rowsperstrip": 7}), (1, 3))
    for kind, order, planes, blocks, orientation in layouts:
        picture, options = draw(BANDS[kind]), {"compression": compression, "predictor": predictor, **blocks}
        options |= {"byteorder": order, "extratags": [(274, 3, 1, orientation, True)]}
        if kind != "grey":
            options["planarconfig"] = planes
        try:
            assert_same_picture(
                write_tiff(deepen(picture, 2_047), kind, **options), write_tiff(picture, kind, **options), "11_to_8"
            )
        except UnsupportedPixelFormat:
            refused += 1
    # The layouts with grey bands in planes, and uncompressed planes with a band of unspecified meaning.
    assert refused == (8 + 8 if compression is None else 8)


@pytest.mark.parametrize("white", [2_047, 4_095, 65_535])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_a_deep_png_has_the_pixels_of_its_eight_bit_twin(bands: int, white: int) -> None:
    """Grey and colour, with and without alpha, decode to within one level of the 8-bit original."""
    picture = np.squeeze(draw(bands))
    eight, deep = (bytes(imagecodecs.png_encode(np.ascontiguousarray(p))) for p in (picture, deepen(picture, white)))
    assert_same_picture(deep, eight, SCALINGS[white])


@pytest.mark.parametrize(("bands", "key"), [(1, [700]), (3, [700, 300, 100])])
def test_the_transparent_colour_is_compared_before_scaling(bands: int, key: list[int]) -> None:
    """Samples that equal a PNG's transparent colour become white; others that scale to the same level do not."""
    samples = deepen(draw(bands), 2_047)
    samples[:5], samples[5:10] = key, np.array(key) + 1
    data = bytes(imagecodecs.png_encode(np.ascontiguousarray(np.squeeze(samples))))
    start = data.index(b"IDAT") - 4
    data = data[:start] + pngs.make_chunk(b"tRNS", struct.pack(f">{bands}H", *key)) + data[start:]
    decoded = decode(data)
    assert decoded.scaling == "11_to_8"
    assert (decoded.pixels[:5] == 255).all()
    assert (decoded.pixels[5:10] == np.round((np.array(key) + 1) * 255 / 2_047)).all()


@pytest.mark.parametrize("factor", [257, 256, 16])
@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_a_dark_picture_from_fewer_bits_stays_dark(kind: str, factor: int) -> None:
    """Samples that were repeated or shifted to fill 16 bits keep their brightness, however dark."""
    dark = (draw(BANDS[kind]) >> 3).astype(np.uint16) * factor
    decoded = decode(write_tiff(dark, kind))
    assert decoded.scaling == "16_to_8"
    assert np.array_equal(decoded.pixels, np.broadcast_to(dark >> 8, (HEIGHT, WIDTH, 3)))


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_black_images_stay_black(kind: str) -> None:
    """An image without any signal is not scaled."""
    decoded = decode(write_tiff(np.zeros((HEIGHT, WIDTH, BANDS[kind]), np.uint16), kind))
    assert (decoded.scaling, decoded.pixels.max()) == ("16_to_8", 0)


def test_borders_without_data_change_no_other_pixel() -> None:
    """Borders of 0 or 65535 become black or white, and do not change how the rest of the picture is scaled."""
    picture = draw(3)
    for fill, level in ((0, 0), (65_535, 255)):
        samples = deepen(picture, 4_095)
        samples[:8] = fill
        decoded = decode(write_tiff(samples, compression="zstd"))
        assert decoded.scaling == "12_to_8"
        assert (decoded.pixels[:8] == level).all()
        assert np.abs(decoded.pixels[8:].astype(int) - picture[8:]).max() <= 1


@pytest.mark.parametrize("kind", ["separated", "premultiplied"])
def test_samples_that_no_sensor_delivers_have_the_full_range(kind: str) -> None:
    """CMYK and premultiplied colours are scaled from the full range, whatever their values."""
    options: dict[str, Any] = {"photometric": "separated"} if kind == "separated" else {"photometric": "rgb"}
    if kind == "premultiplied":
        options["extrasamples"] = ["assocalpha"]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, deepen(draw(4), 2_047), metadata=None, **options)
    assert decode(buffer.getvalue()).scaling == "16_to_8"


@pytest.mark.parametrize(
    ("depth", "colour", "scaling"),
    [(1, 0, "1_to_8"), (2, 0, "2_to_8"), (4, 0, "4_to_8"), (8, 0, "none"), (8, 2, "none"), (4, 3, "none")],
)
def test_the_depth_of_other_samples_is_named(make_png: Encode, depth: int, colour: int, scaling: str) -> None:
    """Grey of few bits is scaled to 8 bits; palette images report the depth of their indices, and are not scaled."""
    palette = (b"PLTE", bytes(range(48))) if colour == 3 else None
    decoded = decode(make_png((8, 8), depth, colour, bytes(8 * depth * (3 if colour == 2 else 1) // 8), chunk=palette))
    assert (decoded.bit_depth, decoded.scaling) == (depth, scaling)


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_a_declared_maximum_is_the_range_of_a_dark_picture(kind: str) -> None:
    """A dark picture that declares its sensor's SMaxSampleValue has the pixels of its dark 8-bit twin."""
    dark = (draw(BANDS[kind]) >> 3).astype(np.uint8)
    deep = write_tiff(deepen(dark, 2_047), kind, extratags=[(341, 3, 1, 2_047, True)])
    assert_same_picture(deep, write_tiff(dark, kind), "11_to_8")


def test_declared_missing_data_is_no_sample() -> None:
    """The value of GDAL_NODATA does not darken the picture."""
    samples = deepen(draw(3), 2_047)
    samples[:8] = 32_767
    assert decode(write_tiff(samples)).scaling == "16_to_8"
    assert decode(write_tiff(samples, extratags=[(42113, 2, 6, "32767", True)])).scaling == "11_to_8"
