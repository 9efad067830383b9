"""WebPs, lossy and lossless, still and animated, with metadata, many parts and many prefix codes."""

from __future__ import annotations

import io
from random import Random

from PIL import Image

from tests.experiments.structured.sizes import choose_size
from tests.support.images import webps

_MAX_SIDE = 16_383


def make_webp(random: Random) -> bytes:
    if random.random() < 0.4:
        return _build(random)
    data = _encode(random, _choose_size(random))
    if random.random() < 0.3:
        chunk = webps.make_chunk(random.choice((b"junk", b"EXIF", b"XMP ", b"ICCP")), random.randbytes(8))
        extra = chunk * random.choice((1, 500, 20_000))
        return data[:12] + extra + data[12:] if random.random() < 0.5 else data + extra
    return data


def _choose_size(random: Random) -> tuple[int, int]:
    width, height = choose_size(random)
    return min(width, _MAX_SIDE), min(height, _MAX_SIDE)


def _encode(random: Random, size: tuple[int, int]) -> bytes:
    """Encode an image as an ordinary encoder does, at its fastest settings."""
    buffer = io.BytesIO()
    tile = Image.effect_noise((min(size[0], 64), min(size[1], 64)), 60).convert(random.choice(("RGB", "RGBA")))
    image = tile.resize(size)
    exif = {"exif": b"Exif\0\0" + random.randbytes(100)} if random.random() < 0.3 else {}
    small = size[0] * size[1] < 100_000
    options = {"lossless": random.random() < 0.5, "method": random.choice((0, 4) if small else (0,)), "quality": 20}
    if small and random.random() < 0.4:
        frames = [image.rotate(90 * turn) for turn in range(random.choice((1, 3)))]
        image.save(buffer, "WEBP", save_all=True, append_images=frames, **options, **exif)
    else:
        image.save(buffer, "WEBP", **options, **exif)
    return buffer.getvalue()


def _build(random: Random) -> bytes:
    """Build a bitstream with many prefix codes, as pixels, as an alpha channel, or in the frame of an animation."""
    width, height = random.randint(4, 240), random.randint(4, 240)
    groups = min(random.choice((1, 300, 900, 1_100, 4_000)), (width + 3) // 4 * ((height + 3) // 4))
    canvas = random.choice(((width, height), (width * 20, height * 20)))
    pixels = webps.make_chunk(b"VP8L", webps.make_grouped_pixels(width, height, groups))
    header = webps.make_extended_header(random.choice((0x00, 0x02, 0x12, 0x3E)), *canvas)
    loop = webps.make_chunk(b"ANIM", bytes(6))
    kind = random.choice(("pixels", "alpha", "frame", "frames"))
    if kind == "pixels":
        return webps.make_webp(pixels)
    if kind == "alpha":
        alpha = b"\1" + webps.make_grouped_pixels(width, height, groups, with_header=False)
        lossy = _encode_lossy(width, height)
        return webps.make_webp(webps.make_extended_header(0x10, width, height), webps.make_chunk(b"ALPH", alpha), lossy)
    frame = webps.make_frame(width, height, pixels)
    return webps.make_webp(header, loop, frame * (1 if kind == "frame" else random.choice((2, 100))))


def _encode_lossy(width: int, height: int) -> bytes:
    """Return the chunk of lossy pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(buffer, "WEBP", method=0)
    return buffer.getvalue()[12:]
