"""Images of every accepted format, and mutations of them that a seed and a number determine."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Literal

import numpy as np
from PIL import Image, PngImagePlugin

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
_CHANGES = (1, 1, 1, 1, 2, 2, 3, 6)
# Sizes at which integers overflow or allocations begin.
_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 4_095, 32_767, 32_768, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_MARKERS = (b"\xff\xd8", b"\xff\xda", b"\xff\xc2", b"\xff\xc4", b"IDAT", b"IEND", b"tRNS", b"VP8X", b"ANMF", b"II*\0")

_INTEGERS: Sequence[tuple[int, Literal["big", "little"]]] = ((2, "big"), (2, "little"), (4, "big"), (4, "little"))

Mutation = Callable[[bytearray, Random], None]


def _pictures() -> Mapping[str, Image.Image]:
    noise = np.random.default_rng(3).integers(0, 256, (48, 40, 4), np.uint8)
    ramp = np.linspace(0, 255, 48 * 40, dtype=np.uint8).reshape(48, 40)
    rgb = Image.fromarray(np.dstack([ramp, ramp[::-1], noise[..., 0] // 4]))
    return {
        "RGB": rgb,
        "RGBA": Image.fromarray(noise),
        "L": Image.fromarray(ramp),
        "LA": Image.fromarray(noise).convert("LA"),
        "P": rgb.quantize(64),
        "1": Image.fromarray(ramp).convert("1"),
        "CMYK": rgb.convert("CMYK"),
        "I;16": Image.fromarray(ramp.astype(np.uint16) * 257),
    }


def _recipes() -> Mapping[str, Sequence[tuple[str, dict[str, Any]]]]:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "described", 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "packed " * 20, zip=True)
    text.add_itxt("Title", "more", "en", "Titel")
    tiffs = ("raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg")
    return {
        "JPEG": [
            ("RGB", {"quality": 90}),
            ("RGB", {"progressive": True, "exif": exif, "icc_profile": bytes(300)}),
            ("L", {"quality": 30, "comment": b"said"}),
            ("CMYK", {}),
            ("RGB", {"subsampling": 2, "restart_marker_blocks": 4, "optimize": True}),
        ],
        "PNG": [
            ("RGB", {"pnginfo": text}),
            ("RGBA", {"exif": exif}),
            ("P", {"transparency": 3}),
            ("1", {}),
            ("LA", {}),
            ("I;16", {}),
            ("RGB", {"save_all": True, "append_images": [Image.new("RGB", (40, 48))]}),
        ],
        "WEBP": [
            ("RGB", {"quality": 60}),
            ("RGBA", {"lossless": True}),
            ("RGBA", {"quality": 50, "exif": exif, "icc_profile": bytes(300), "xmp": b"<x/>"}),
            ("RGB", {"save_all": True, "append_images": [Image.new("RGB", (40, 48))]}),
        ],
        "TIFF": [
            *(("RGB", {"compression": compression}) for compression in tiffs),
            ("1", {"compression": "group4"}),
            ("1", {"compression": "group3"}),
            ("RGBA", {"compression": "tiff_lzw"}),
            ("I;16", {"compression": "tiff_lzw"}),
            ("P", {"compression": "raw"}),
            ("RGB", {"big_tiff": True, "exif": exif}),
            ("RGB", {"save_all": True, "append_images": [Image.new("L", (40, 48))]}),
        ],
    }


def corpus() -> dict[str, list[bytes]]:
    """Valid files by format, in every mode, compression and kind of metadata that Pillow writes."""
    pictures = _pictures()
    files: dict[str, list[bytes]] = {}
    for name, recipes in _recipes().items():
        for mode, options in recipes:
            buffer = io.BytesIO()
            pictures[mode].save(buffer, name, **options)
            files.setdefault(name, []).append(buffer.getvalue())
    return files


def mutant(files: Mapping[str, Sequence[bytes]], name: str, seed: int, number: int) -> bytes:
    """Build image `number` of a format: one of its files after a few changes, with corrected checksums in many PNGs."""
    random = Random(f"{seed} {name} {number}")  # noqa: S311  (reproducible, not secret)
    data = bytearray(random.choice(files[name]))
    for _ in range(random.choice(_CHANGES)):
        random.choice(_MUTATIONS)(data, random)
    if random.random() < 0.1:
        _splice(data, random.choice(files[random.choice(FORMATS)]), random)
    if name == "PNG" and random.random() < 0.6:
        return _with_checksums(bytes(data))
    if name == "WEBP" and random.random() < 0.6:
        data[4:8] = struct.pack("<I", max(0, len(data) - 8))
    return bytes(data)


def _position(data: bytearray, random: Random) -> int:
    """Choose a position, in half of the cases in the first 256 bytes, where the headers are."""
    end = max(1, len(data))
    return random.randrange(min(end, 256)) if random.random() < 0.5 else random.randrange(end)


def _flip_bits(data: bytearray, random: Random) -> None:
    for _ in range(random.randint(1, 8)):
        if data:
            data[_position(data, random)] ^= 1 << random.randrange(8)


def _overwrite(data: bytearray, random: Random) -> None:
    position = _position(data, random)
    data[position : position + random.randint(1, 16)] = random.randbytes(random.randint(1, 16))


def _set_number(data: bytearray, random: Random) -> None:
    position = _position(data, random)
    size, order = random.choice(_INTEGERS)
    number = random.choice(_NUMBERS) + random.choice((0, 0, 1, -1))
    data[position : position + size] = (number % 256**size).to_bytes(size, order)


def _set_marker(data: bytearray, random: Random) -> None:
    position, marker = _position(data, random), random.choice(_MARKERS)
    data[position : position + len(marker)] = marker


def _copy_block(data: bytearray, random: Random) -> None:
    start, target = _position(data, random), _position(data, random)
    data[target:target] = data[start : start + random.randint(1, 400)] * random.choice((1, 1, 1, 50))


def _move_block(data: bytearray, random: Random) -> None:
    start, length = _position(data, random), random.randint(1, 200)
    block = data[start : start + length]
    del data[start : start + length]
    target = _position(data, random)
    data[target:target] = block


def _delete_block(data: bytearray, random: Random) -> None:
    start = _position(data, random)
    del data[start : start + random.randint(1, 100)]


def _truncate(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]


def _zero_block(data: bytearray, random: Random) -> None:
    start, length = _position(data, random), random.randint(1, 200)
    data[start : start + length] = bytes([random.choice((0, 255))]) * len(data[start : start + length])


def _append(data: bytearray, random: Random) -> None:
    data += random.randbytes(random.randint(1, 2_000))


_MUTATIONS: Sequence[Mutation] = (
    _flip_bits,
    _flip_bits,
    _overwrite,
    _set_number,
    _set_number,
    _set_number,
    _set_marker,
    _copy_block,
    _move_block,
    _delete_block,
    _zero_block,
    _truncate,
    _append,
)


def _splice(data: bytearray, other: bytes, random: Random) -> None:
    position, start = _position(data, random), random.randrange(len(other))
    data[position:] = other[start:]


def _with_checksums(data: bytes) -> bytes:
    """Correct the checksums of all chunks of a PNG, because the decoder stops at a wrong one."""
    fixed, position = data[:8], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if position + 12 + length > len(data):
            break
        chunk = data[position + 4 : position + 8 + length]
        fixed += data[position : position + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        position += 12 + length
    return fixed + data[position:]
