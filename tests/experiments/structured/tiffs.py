"""TIFFs with every compression, whose strips and tiles share bytes, overlap, nest JPEGs or lie outside the file."""

from __future__ import annotations

import io
import lzma
import math
import zlib
from collections.abc import Callable, Sequence
from math import ceil
from random import Random

import imagecodecs
from PIL import Image

from tests.experiments.structured.jpegs import make_stream
from tests.experiments.structured.sizes import choose_size
from tests.support.images import tiffs

_RAW, _RLE, _FAX3, _FAX4, _LZW, _OLD_JPEG, _JPEG, _DEFLATE = 1, 2, 3, 4, 5, 6, 7, 8
_PACKBITS, _THUNDERSCAN, _OLD_DEFLATE, _LZMA, _ZSTD = 32773, 32809, 32946, 34925, 50000
_COMPRESSIONS = (
    *(_RAW, _RLE, _FAX3, _FAX4, _LZW, _OLD_JPEG, _JPEG, _JPEG, _DEFLATE),
    *(_PACKBITS, _THUNDERSCAN, _OLD_DEFLATE, _LZMA, _ZSTD, 32771, 34676),
)
# Photometric interpretation, samples and bits.
_KINDS = ((1, 1, 8), (0, 1, 1), (1, 1, 16), (2, 3, 8), (2, 4, 8), (2, 3, 16), (5, 4, 8), (3, 1, 8), (1, 1, 4))
_FAX_KINDS = ((0, 1, 1), (1, 1, 1))
_JPEG_KINDS = ((1, 1, 8), (2, 3, 8), (6, 3, 8), (5, 4, 8))
_KINDS_BY_COMPRESSION = {_RLE: _FAX_KINDS, _FAX3: _FAX_KINDS, _FAX4: _FAX_KINDS, _JPEG: _JPEG_KINDS}
_MAX_BLOCKS, _MAX_BYTES = 40_000, 3_000_000
_LARGE_DICTIONARY = {
    "id": lzma.FILTER_LZMA2,
    "dict_size": 1 << 26,
    "mode": lzma.MODE_FAST,
    "mf": lzma.MF_HC3,
    "nice_len": 32,
}

Values = dict[int, tuple[int, Sequence[float]]]


def make_tiff(random: Random) -> bytes:
    """Make a TIFF whose headers are valid as far as Pillow and libtiff check them, and point to anything."""
    width, height = choose_size(random)
    compression = random.choice(_COMPRESSIONS)
    photometric, samples, bits = random.choice(_KINDS_BY_COMPRESSION.get(compression, _KINDS))
    planar = samples > 1 and random.random() < 0.2
    block, tags, count = _choose_blocks(random, (width, height))
    count *= samples if planar else 1
    size = ceil(block[0] * bits * (1 if planar else samples) / 8) * block[1]
    contents = [
        _pack(random, compression, block, size, 1 if planar else samples) for _ in range(random.choice((1, 1, 3)))
    ]
    big = random.random() < 0.2
    content, offsets, lengths = _arrange(random, contents, min(count, _MAX_BLOCKS), 16 if big else 8)
    is_tiled = 322 in tags
    values: Values = {
        **tags,
        256: (tiffs.LONG, [width]),
        257: (tiffs.LONG, [height]),
        258: (tiffs.SHORT, [bits] * samples),
        259: (tiffs.SHORT, [compression]),
        262: (tiffs.SHORT, [photometric]),
        277: (tiffs.SHORT, [samples]),
        284: (tiffs.SHORT, [2 if planar else 1]),
        (324 if is_tiled else 273): (tiffs.LONG, offsets),
        (325 if is_tiled else 279): (tiffs.LONG, lengths),
        **_make_rare_tags(random, photometric, bits, samples),
    }
    following = random.choice((0, 8, 2**31))
    return tiffs.make_tiff(values, content, order=random.choice("<>"), big=big, following=following)


def _choose_blocks(random: Random, size: tuple[int, int]) -> tuple[tuple[int, int], Values, int]:
    """Choose the size of a strip or tile; return it with its tags and the number of them that cover the image."""
    width, height = size
    if random.random() < 0.6:
        rows = random.choice((1, 8, 16, height, height, 2**31))
        return (width, min(rows, height)), {278: (tiffs.LONG, [rows])}, ceil(height / rows)
    side = random.choice((16, 64, 256, 1_024, 4_096))
    tile = (side, random.choice((side, 16)))
    tags: Values = {322: (tiffs.LONG, [tile[0]]), 323: (tiffs.LONG, [tile[1]])}
    return tile, tags, ceil(width / tile[0]) * ceil(height / tile[1])


def _pack(random: Random, compression: int, block: tuple[int, int], size: int, samples: int) -> bytes:
    """Compress zeros or repeated noise: as much as the block holds, half of it or three times as much."""
    if compression in (_JPEG, _OLD_JPEG):
        return _pack_jpeg(random, block, samples)
    # The last one makes 16-bit samples that use 10 bits, in either byte order.
    plain = random.choice((b"\0", b"\xff", random.randbytes(97), b"\3\1"))
    length = min(round(size * random.choice((1, 1, 1, 0.5, 3))), _MAX_BYTES)
    raw = plain * (length // len(plain)) + plain[: length % len(plain)]
    packers: dict[int, Callable[[], bytes]] = {
        _RAW: lambda: raw,
        _DEFLATE: lambda: zlib.compress(raw, 1),
        _OLD_DEFLATE: lambda: zlib.compress(raw, 1),
        _LZW: lambda: bytes(imagecodecs.lzw_encode(raw[:300_000])),
        _PACKBITS: lambda: b"\x81\xff" * ceil(length / 128),
        _ZSTD: lambda: bytes(imagecodecs.zstd_encode(raw, level=1)),
        _LZMA: lambda: lzma.compress(raw, **({"filters": [_LARGE_DICTIONARY]} if length < 100_000 else {"preset": 0})),
    }
    return packers.get(compression, lambda: random.randbytes(min(length, 2_000)))()


def _pack_jpeg(random: Random, block: tuple[int, int], samples: int) -> bytes:
    """Make a JPEG of the block's size, or of another size."""
    if random.random() < 0.4:
        return make_stream(random, random.choice((block, choose_size(random), (block[0], 65_000))))
    buffer = io.BytesIO()
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[samples]
    image = Image.effect_noise((16, 16), 60).convert(mode)
    width, height = (min(side, 4_096) for side in block)
    image.resize((width, height)).save(buffer, "JPEG", subsampling=0, progressive=random.random() < 0.2, quality=40)
    return buffer.getvalue()


def _arrange(
    random: Random, contents: Sequence[bytes], count: int, start: int
) -> tuple[bytes, Sequence[int], Sequence[int]]:
    """Return the bytes of the blocks, their offsets and their lengths."""
    kind = random.choice(("apart", "apart", "apart", "shared", "overlapping", "outside", "zero", "few"))
    chosen = [contents[index % len(contents)] for index in range(count)]
    lengths = [len(content) for content in chosen]
    if kind == "apart" and sum(lengths) < 10 * _MAX_BYTES:
        offsets = [start]
        for length in lengths:
            offsets.append(offsets[-1] + length)
        return b"".join(chosen), offsets[:-1], lengths
    content = b"".join(contents)
    step = {"overlapping": 1, "outside": 1_000_000}.get(kind, 0)
    offsets = [min(start + step * index, 2**32 - 1) for index in range(count)]
    if kind == "zero":
        lengths = [0] * count
    return content, offsets, lengths[: max(1, count // 2)] if kind == "few" else lengths


def _make_rare_tags(random: Random, photometric: int, bits: int, samples: int) -> Values:
    """Make tags for a palette, a predictor, orientations, pointers to further directories, and metadata."""
    tags: Values = {}
    if photometric == 3:
        tags[320] = (tiffs.SHORT, [index % 65_536 for index in range(3 << bits)])
    if samples == 4 and photometric == 2:
        tags[338] = (tiffs.SHORT, [random.randrange(3)])
    for tag, kind, values in (
        (317, tiffs.SHORT, [2]),
        (266, tiffs.SHORT, [2]),
        (274, tiffs.SHORT, [random.randint(0, 9)]),
        (292, tiffs.LONG, [random.randint(0, 7)]),
        (330, tiffs.LONG, [8] * random.choice((1, 1_000))),
        (34665, tiffs.LONG, [8]),
        (34675, tiffs.UNDEFINED, bytes(random.choice((9, 100_000)))),
        (530, tiffs.SHORT, [2, 2]),
        (347, tiffs.UNDEFINED, b"\xff\xd8" + random.randbytes(60) + b"\xff\xd9"),
        (65_000, tiffs.RATIONAL, [1] * random.choice((2, 60_000))),
        (281, tiffs.SHORT, [random.randrange(65_536)]),
        (33550, tiffs.DOUBLE, [random.choice((math.nan, math.inf, 0.0, -1.0, 0.3, 1e300))] * 3),
        (33922, tiffs.DOUBLE, [random.choice((math.nan, 0.0, 45.0, 1e300))] * random.choice((1, 6, 60_000))),
        (34735, tiffs.SHORT, [1, 1, 0, 9, 1024, 0, 1, random.randrange(4), *random.choices(range(65_536), k=99)]),
        (42113, tiffs.TEXT, list(random.choice((b"0\0", b"nan\0", b"9" * 400)))),
    ):
        if random.random() < 0.05:
            tags[tag] = (kind, list(values))
    return tags
