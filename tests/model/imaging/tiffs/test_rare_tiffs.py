"""TIFFs of few bits, with palettes, fax and JPEG compression, reversed bits, and missing or invalid parts."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from model.errors import CorruptImage, UnsupportedPixelFormat
from model.imaging.decode import decode_image
from model.imaging.input_spec import InputSpec
from tests.model.imaging.tiffs.tiff_files import Layout, read_samples, write_tiff

Encode = Callable[..., bytes]
SPEC = InputSpec(32, 24)
Y, X = np.mgrid[:24, :32]
PICTURE = Image.fromarray(np.stack([X * 8, Y * 10, (X + Y) * 4], axis=-1).astype(np.uint8))
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def pack(samples: NDArray[np.int64], bits: int, fill_order: int) -> bytes:
    """Rows of 32 samples of `bits` bits, with the most (1) or the least significant bit (2) of each byte first."""
    rows = ("".join(f"{sample:0{bits}b}" for sample in row) for row in samples.tolist())
    packed = b"".join(int(row, 2).to_bytes(4 * bits) for row in rows)
    return packed.translate(REVERSED) if fill_order == 2 else packed


def decode(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, SPEC).pixels


@pytest.mark.parametrize(
    ("bits", "black", "fill_order"),
    # Pillow does not read reversed bits of 8-bit samples in which 0 is white.
    sorted(set(itertools.product((1, 2, 4, 8), (0, 1), (1, 2))) - {(8, 0, 2)}),
)
@pytest.mark.parametrize("planar", [1, 2])
def test_few_bits_are_scaled(make_tiff: Encode, bits: int, black: int, fill_order: int, planar: int) -> None:
    """Grey of 1 to 8 bits is scaled to 0..255, whichever value is black and whichever bit comes first."""
    largest = 2**bits - 1
    samples = np.random.default_rng(2).integers(0, largest + 1, (24, 32))
    tags = {262: (3, [black]), 266: (3, [fill_order]), 284: (3, [planar])}
    data = make_tiff((32, 24), [bits], pack(samples, bits, fill_order), tags)
    grey = samples * 255 // largest
    assert np.array_equal(decode(data)[..., 1], grey if black else 255 - grey)


@pytest.mark.parametrize(("bits", "fill_order"), [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2)])
def test_palettes_have_one_to_eight_bits(make_tiff: Encode, bits: int, fill_order: int) -> None:
    """Indices of each depth become colours of the palette, whichever bit comes first."""
    palette = np.random.default_rng(4).integers(0, 256, (3, 2**bits))
    indices = np.random.default_rng(3).integers(0, 2**bits, (24, 32))
    tags = {262: (3, [3]), 266: (3, [fill_order]), 320: (3, (palette * 257).ravel().tolist())}
    packed = pack(indices, bits, fill_order)
    assert np.array_equal(decode(make_tiff((32, 24), [bits], packed, tags)), palette.T[indices])


def test_reversed_bits_of_rgb_are_read(make_tiff: Encode) -> None:
    """Interleaved RGB with reversed bits is decoded."""
    data = make_tiff((32, 24), [8, 8, 8], PICTURE.tobytes().translate(REVERSED), {266: (3, [2])})
    assert np.array_equal(decode(data), np.asarray(PICTURE))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits"])
def test_palettes_are_applied(encode: Encode, compression: str) -> None:
    """Indices become the colours of the palette, as in a second reader."""
    indexed = PICTURE.quantize(50)
    data = encode(indexed, "TIFF", compression=compression)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        assert page.colormap is not None
        colours = (page.colormap[:, page.asarray()] >> 8).transpose(1, 2, 0)
    assert np.array_equal(decode(data), colours)
    assert np.array_equal(decode(data), np.asarray(indexed.convert("RGB")))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("fill_order", [1, 2])
def test_fax_compression_is_read(encode: Encode, compression: str, fill_order: int) -> None:
    """Bilevel images with the three CCITT compressions are decoded to black and white."""
    bilevel = PICTURE.convert("1")
    data = encode(bilevel, "TIFF", compression=compression, tiffinfo={266: fill_order})
    assert np.array_equal(decode(data), np.asarray(bilevel.convert("RGB")))


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_ycbcr_with_jpeg_compression_is_read(subsampling: tuple[int, int], orientation: int) -> None:
    """Colour that JPEG stores as YCbCr has the pixels of a second reader, in each orientation."""
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        np.asarray(PICTURE),
        photometric="rgb",
        compression="jpeg",
        subsampling=subsampling,
        rowsperstrip=8 * subsampling[1],
        extratags=[(274, 3, 1, orientation, True)],
        metadata=None,
    )
    turned = Image.fromarray(read_samples(buffer.getvalue()))
    turned.getexif()[274] = orientation
    with io.BytesIO() as png:
        turned.save(png, "PNG", exif=turned.getexif())
        assert np.array_equal(decode(buffer.getvalue()), decode(png.getvalue()))


@pytest.mark.parametrize("mode", ["RGB", "RGBX", "L"])
def test_jpeg_compression_without_ycbcr_is_read(encode: Encode, mode: str) -> None:
    """JPEG strips whose samples are RGB or grey have the pixels of a second reader."""
    data = encode(PICTURE.convert(mode), "TIFF", compression="jpeg")
    samples = read_samples(data)[..., :3]
    assert np.array_equal(decode(data), np.repeat(samples, 3, axis=2) if mode == "L" else samples)


@pytest.mark.parametrize("extra", [None, 2, 999])
def test_a_fourth_sample_of_rgb_is_alpha(make_tiff: Encode, extra: int | None) -> None:
    """A fourth RGB sample is alpha, whether declared as in the specification, as by Corel Draw, or not at all."""
    tags = {} if extra is None else {338: (3, [extra])}
    data = make_tiff((32, 24), [8] * 4, bytes([0, 100, 200, 51]) * 32 * 24, tags)
    assert decode(data)[0, 0].tolist() == [204, 224, 244]


@pytest.mark.parametrize(
    ("bits", "tags", "described"),
    [
        ([8, 8, 8], {262: (3, [6]), 530: (3, [2, 2])}, "YCbCr, no compression"),
        ([8, 8, 8], {262: (3, [8])}, "CIE L*a*b*"),
        ([8, 8, 8], {262: (3, [32844])}, "photometric interpretation 32844"),
        ([8, 8, 8], {266: (3, [2]), 284: (3, [2]), 273: (4, [8] * 3), 279: (4, [64] * 3)}, "reversed bits"),
        ([8], {262: (3, [0]), 266: (3, [2])}, "WhiteIsZero, reversed bits"),
        ([8, 8, 8, 8], {262: (3, [5]), 332: (3, [2])}, "CMYK"),
        ([8, 8, 16], {}, "bands of different depths"),
        ([32], {339: (3, [6])}, "complex floating-point"),
        ([16], {262: (3, [3])}, "16 bits (unsigned), palette"),
        ([8], {259: (3, [6])}, "old-style JPEG compression"),
        ([8], {259: (3, [34712])}, "JPEG 2000 compression"),
        ([8], {259: (3, [9])}, "compression 9"),
        ([8], {273: (4, [8, 0]), 279: (4, [64, 0]), 278: (3, [4])}, "missing strips or tiles"),
    ],
    ids=str,
)
def test_rare_layouts_are_unsupported(
    make_tiff: Encode, bits: Sequence[int], tags: dict[int, Any], described: str
) -> None:
    """A layout that Pillow does not decode, or decodes wrongly, is rejected, and the message says what is unusual."""
    with pytest.raises(UnsupportedPixelFormat) as refusal:
        decode(make_tiff((8, 8), bits, bytes(1024), tags))
    assert described in str(refusal.value)


@pytest.mark.parametrize("planar", [False, True])
def test_missing_strips_are_corrupt(planar: bool) -> None:
    """An uncompressed file whose directory lists fewer strips than its rows need is corrupt."""
    data = write_tiff(Layout("rgb", "uint8", planar, None, "<", False))
    strips = 9 if planar else 3
    entry = struct.pack("<HHI", 273, 4, strips)
    assert data.count(entry) == 1
    with pytest.raises(CorruptImage):
        decode(data.replace(entry, struct.pack("<HHI", 273, 4, strips - 1)))


@pytest.mark.parametrize("kind", ["rgb", "twelve greys"])
def test_a_truncated_directory_is_corrupt(kind: str) -> None:
    """A TIFF with a truncated directory is corrupt, whatever its layout."""
    data = write_tiff(Layout(kind, "uint8", False, None, "<", False))
    with pytest.raises(CorruptImage):
        decode(data[:60])
