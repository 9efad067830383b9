"""PNGs of every pixel type, interlaced or not, with large compressed chunks, animations and many parts."""

from __future__ import annotations

import struct
import zlib
from math import ceil
from random import Random

from tests.experiments.structured.sizes import choose_size
from tests.support.images import pngs

# Depths by colour type, and samples by colour type.
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_KEY_LENGTHS = {0: 2, 2: 6, 3: 200}
_FILTERS = 5


def make_png(random: Random) -> bytes:
    width, height = choose_size(random)
    colour = random.choice(tuple(_DEPTHS))
    depth = random.choice(_DEPTHS[colour])
    interlaced = random.random() < 0.3
    parts = [pngs.make_header(width, height, depth, colour, interlaced=interlaced)]
    if colour == 3 or random.random() < 0.1:
        parts.append(pngs.make_chunk(b"PLTE", random.randbytes(3 * random.choice((1, 16, 256)))))
    if colour in _KEY_LENGTHS and random.random() < 0.4:
        parts.append(pngs.make_chunk(b"tRNS", random.randbytes(_KEY_LENGTHS[colour])))
    parts += _make_extras(random, width, height)
    row = 1 + ceil(width * depth * _SAMPLES[colour] / 8)
    parts += _make_pixels(random, row, height)
    parts += _make_extras(random, width, height) if random.random() < 0.3 else []
    return pngs.make_png(*parts)


def _make_pixels(random: Random, row: int, height: int) -> list[bytes]:
    """Make rows with any filter, of zeros or repeated noise, sometimes too few or too many."""
    noise = random.randbytes(min(row - 1, 1_000))
    first = bytes([random.randrange(_FILTERS)]) + (noise * ceil(row / max(1, len(noise))) if noise else b"")[: row - 1]
    rows = round(height * random.choice((1, 1, 1, 0.5, 2)) + random.choice((0, 0, 8)))
    packer = zlib.compressobj(random.choice((1, 9)))
    content = b"".join(packer.compress(first) for _ in range(min(rows, 200_000_000 // row))) + packer.flush()
    step = random.choice((len(content), len(content), 8_192, max(1, len(content) // 30_000), 7))
    return [
        pngs.make_chunk(b"IDAT", content[start : start + step]) for start in range(0, min(len(content), 200_000), step)
    ]


def _make_extras(random: Random, width: int, height: int) -> list[bytes]:
    if random.random() < 0.4:
        return []
    bomb = pngs.compress_bomb(random.choice((100, 60_000, 1 << 20, 8 << 20)))
    exif = b"II*\0\x08\0\0\0\xff\xff" + random.randbytes(12) * random.choice((1, 5_000))
    frame = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 10, 0, 0)
    kind, body = random.choice(
        (
            (b"iCCP", b"p\0\0" + bomb),
            (b"zTXt", b"k\0\0" + bomb),
            (b"iTXt", b"k\0\1\0\0\0" + bomb),
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
            (b"tEXt", b"k\0" + b"v" * random.choice((1, 100_000))),
            (b"eXIf", exif),
            (b"acTL", struct.pack(">II", random.choice((1, 2, 2**31)), 0)),
            (b"fcTL", frame),
            (b"juNK", random.randbytes(random.choice((0, 9, 9_000)))),
        )
    )
    chunk = pngs.make_chunk(kind, body)
    return [chunk] * random.choice((1, 1, 2, 50, min(25_000, 1_000_000 // len(chunk))))
