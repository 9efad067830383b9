"""PNGs of every depth and colour type, with and without a transparent colour."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import InputSpec

Encode = Callable[..., bytes]
WHITE = 255
SPEC = InputSpec(8, 1)
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6


def pack(samples: list[int], depth: int) -> bytes:
    """Pack eight or more samples of `depth` bits, the most significant bit first."""
    bits = "".join(f"{sample:0{depth}b}" for sample in samples)
    return int(bits, 2).to_bytes(len(bits) // 8)


def get_row(data: bytes) -> list[list[int]]:
    pixels: list[list[int]] = decode_image(data, SPEC).pixels[0].tolist()
    return pixels


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_samples_are_scaled_to_eight_bits(make_png: Encode, depth: int) -> None:
    """At every depth, the largest sample becomes white; other samples are scaled or keep their high byte."""
    largest = 2**depth - 1
    samples = [0, largest, largest // 2, largest // 3, 1, 0, largest, largest]
    row = [[sample >> 8 if depth == 16 else sample * 255 // largest] * 3 for sample in samples]
    assert get_row(make_png((8, 1), depth, GREY, pack(samples, depth))) == row


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_is_white_at_every_depth(make_png: Encode, depth: int) -> None:
    """At every depth, samples that equal the key become white; others keep their value."""
    largest = 2**depth - 1
    key = largest // 3
    samples = [key, largest, key, largest, 0, largest, key, largest]
    row = [[0] * 3 if sample == 0 and key else [WHITE] * 3 for sample in samples]
    for high_bits in (0, 0xFF00 if depth in {2, 4, 8} else 0):  # bits above the depth have no meaning
        chunk = (b"tRNS", struct.pack(">H", key | high_bits))
        assert get_row(make_png((8, 1), depth, GREY, pack(samples, depth), chunk=chunk)) == row


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_is_white_at_every_depth(make_png: Encode, depth: int) -> None:
    """A pixel is transparent only if all bits of its three samples equal the key's, including the low byte."""
    unit = 0x0101 if depth == 16 else 1
    key = [unit * value for value in (10, 20, 230)]
    near = [[*key[:2], key[2] + 1], [key[0] + 1, *key[1:]], [key[1], key[0], key[2]]]
    samples = [key, *near, key, near[0], key, key]
    high = depth - 8
    row = [[WHITE] * 3 if sample == key else [value >> high for value in sample] for sample in samples]
    chunk = (b"tRNS", struct.pack(">HHH", *key))
    data = make_png((8, 1), depth, COLOUR, pack([value for sample in samples for value in sample], depth), chunk=chunk)
    assert get_row(data) == row


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_transparent_palette_entries_are_white_at_every_depth(make_png: Encode, depth: int) -> None:
    """The alpha of each palette entry counts; entries without one are opaque."""
    indices = [0, 1, 1, 0, 0, 0, 1, 1]
    palette = (b"PLTE", bytes([0, 100, 200, 50, 60, 70]))
    data = make_png((8, 1), depth, PALETTE, pack(indices, depth), chunk=palette)
    assert get_row(data) == [[[0, 100, 200], [50, 60, 70]][index] for index in indices]
    start = data.index(b"IDAT") - 4
    keyed = make_png((8, 1), depth, PALETTE, b"", chunk=(b"tRNS", b"\x33"))
    chunk = keyed[keyed.index(b"tRNS") - 4 : keyed.index(b"IDAT") - 4]
    row = get_row(data[:start] + chunk + data[start:])
    assert row == [[[204, 224, 244], [50, 60, 70]][index] for index in indices]


@pytest.mark.parametrize(("colour", "bands"), [(GREY_ALPHA, 1), (COLOUR_ALPHA, 3)])
def test_sixteen_bit_alpha_has_the_pixels_of_its_eight_bit_twin(make_png: Encode, colour: int, bands: int) -> None:
    """Samples and alpha of 16 bits keep their high byte and are composited over white."""
    samples = np.random.default_rng(5).integers(0, 256, 8 * (bands + 1)).tolist()
    eight = make_png((8, 1), 8, colour, bytes(samples))
    sixteen = make_png((8, 1), 16, colour, struct.pack(f">{len(samples)}H", *(value * 256 + 77 for value in samples)))
    assert get_row(sixteen) == get_row(eight)


def test_a_key_of_sixteen_bits_is_in_the_memory_estimate(make_png: Encode) -> None:
    """The estimate includes the alpha that a key of 16-bit samples needs."""
    for colour, key in ((GREY, b"\0\1"), (COLOUR, b"\0\1" * 3)):
        row = bytes(2 * 500 * (1 if colour == GREY else 3))
        plain = measure_image(make_png((500, 500), 16, colour, row), SPEC)
        keyed = measure_image(make_png((500, 500), 16, colour, row, chunk=(b"tRNS", key)), SPEC)
        assert keyed.bytes > plain.bytes + 5 * 500 * 500
