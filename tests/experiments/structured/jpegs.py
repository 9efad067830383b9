"""JPEGs of every coding process, with any scans, tables, restarts and metadata."""

from __future__ import annotations

import io
from random import Random

from PIL import Image

from tests.experiments.structured.sizes import choose_size
from tests.support.images import jpegs

_PROCESSES = (
    jpegs.BASELINE,
    0xC1,
    jpegs.PROGRESSIVE,
    jpegs.PROGRESSIVE,
    jpegs.LOSSLESS,
    jpegs.ARITHMETIC,
    jpegs.ARITHMETIC_PROGRESSIVE,
    jpegs.ARITHMETIC_PROGRESSIVE,
)
_PROGRESSIVE = (jpegs.PROGRESSIVE, jpegs.ARITHMETIC_PROGRESSIVE)
_SAMPLINGS = ((0x11,), (0x11,) * 3, (0x22, 0x11, 0x11), (0x21, 0x11, 0x11), (0x11,) * 4, (0x41, 0x14, 0x11), (0x22,))
_SCANS = (1, 1, 2, 4, 10, 30, 60)
_QUANTISATION, _HUFFMAN, _CONDITIONING, _COMMENT = 0xDB, 0xC4, 0xCC, 0xFE


def make_jpeg(random: Random) -> bytes:
    if random.random() < 0.15:
        return _encode(random)
    return make_stream(random, choose_size(random))


def make_stream(random: Random, size: tuple[int, int]) -> bytes:
    """Build a JPEG whose headers are valid and whose scans are short, repeated, dense or empty."""
    process, samplings = random.choice(_PROCESSES), random.choice(_SAMPLINGS)
    parts = [*_make_metadata(random), jpegs.make_tables(), *_make_tables(random)]
    if random.random() < 0.3:
        parts.append(jpegs.make_restart_interval(random.choice((1, 2, 64, 65_535))))
    parts.append(jpegs.make_frame(process, *size, samplings))
    parts += _make_scans(random, process, len(samplings))
    return jpegs.make_jpeg(*parts)


def _encode(random: Random) -> bytes:
    """Encode an image as an ordinary encoder does."""
    buffer = io.BytesIO()
    width, height = choose_size(random)
    image = Image.effect_noise((min(width, 64), min(height, 64)), 60).convert(random.choice(("L", "RGB", "CMYK")))
    image.resize((width, height)).save(buffer, "JPEG", progressive=random.random() < 0.5, quality=random.randint(5, 95))
    return buffer.getvalue()


def _make_metadata(random: Random) -> list[bytes]:
    if random.random() < 0.6:
        return []
    prefix = random.choice(
        (b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"ICC_PROFILE\0\1\1", b"JFIF\0", b"Photoshop 3.0\0", b"")
    )
    body = prefix + random.randbytes(8) * random.choice((0, 10, 1_000, 8_000))
    marker = random.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, _COMMENT))
    return [jpegs.make_segment(marker, body)] * random.choice((1, 1, 3, 100, 6_000 if len(body) < 100 else 200))


def _make_tables(random: Random) -> list[bytes]:
    """Build Huffman tables in which coefficients take two bits, and repeated tables."""
    parts = []
    if random.random() < 0.6:
        dense = bytes([0x10, 1, 1]) + bytes(14) + bytes([random.choice((0x01, 0x02, 0x11, 0xF0)), 0x00])
        parts.append(jpegs.make_segment(_HUFFMAN, dense))
    if random.random() < 0.2:
        parts.append(jpegs.make_segment(_CONDITIONING, bytes([0x00, 0x10, 0x10, random.randint(1, 63)])))
    if random.random() < 0.15:
        tables = (b"\0" + b"\1" * 64) * random.choice((1, 100, 1_000))
        parts += [jpegs.make_segment(_QUANTISATION, tables)] * random.choice((1, 5))
    return parts


def _make_scans(random: Random, process: int, components: int) -> list[bytes]:
    everything = range(1, components + 1)
    if process == jpegs.LOSSLESS:
        return [jpegs.make_scan(everything, (random.randint(1, 7), 0), content=_make_content(random))]
    if process not in _PROGRESSIVE:
        apart = random.random() < 0.3
        scans = [(component,) for component in everything] if apart else [tuple(everything)]
        return [jpegs.make_scan(scan, content=_make_content(random)) for scan in scans * random.choice((1, 1, 20))]
    shift = random.randint(0, 3)
    parts = [jpegs.make_scan(everything, (0, 0), shift, _make_content(random))]
    for _ in range(random.choice(_SCANS)):
        first = random.choice((0, 1, 1, 1, 6))
        band = (first, 0 if first == 0 else random.choice((5, 63, 63)))
        refined = random.choice((0x00, 0x01, 0x10, 0x21))
        parts.append(jpegs.make_scan((random.choice(everything),), band, refined, _make_content(random)))
    return parts


def _make_content(random: Random) -> bytes:
    length = random.choice((0, 0, 0, 10, 1_000, 60_000))
    kind = random.choice(("random", "zeros", "pattern", "restarts"))
    if kind == "random":
        return random.randbytes(length).replace(b"\xff", b"\xff\0")
    if kind == "restarts":
        return b"".join(bytes([0, 0xFF, 0xD0 + index % 8]) for index in range(length // 3))
    return (b"\0" if kind == "zeros" else random.randbytes(1).replace(b"\xff", b"\x55")) * length
