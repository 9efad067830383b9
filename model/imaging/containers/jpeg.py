"""Read the frame and the scans of JPEG data (ITU-T T.81, annex B), without decoding them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from model.errors import CorruptImage, UnsupportedImage

START = b"\xff\xd8"
MAX_SEGMENTS = 5_000
MAX_COMPONENTS = 4  # libjpeg decodes no scan with more, and Pillow no frame with more
SEQUENTIAL_HUFFMAN = frozenset({0xC0, 0xC1})
PROGRESSIVE_HUFFMAN = 0xC2
PROGRESSIVE = frozenset({PROGRESSIVE_HUFFMAN, 0xCA})
ARITHMETIC = frozenset({0xC9, 0xCA})
LOSSLESS = 0xC3
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # without DHT, JPG and DAC
START_OF_SCAN, _END = 0xDA, 0xD9
_APP0, _APP14, _APP15, _COMMENT = 0xE0, 0xEE, 0xEF, 0xFE
_RESERVED = frozenset({0xC8, *range(0xF0, 0xFE)})
_LENGTH_BYTES = 2  # the length of a segment includes itself
# The markers that begin a segment, and the end-of-image marker. Stuffed bytes and restart markers are part of a scan.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")


class Component(NamedTuple):
    """A colour component: its identifier and its 8x8 blocks, padded to whole groups of its sampling factors."""

    identifier: int
    blocks: int


class Frame(NamedTuple):
    """A frame header. `marker` names the coding process."""

    marker: int
    precision: int
    width: int
    height: int
    components: tuple[Component, ...]

    @property
    def blocks(self) -> int:
        return sum(component.blocks for component in self.components)


class Scan(NamedTuple):
    """A scan header: the identifiers of its components, and how many of the 64 coefficients it contains."""

    components: tuple[int, ...]
    coefficients: int


class JpegStructure(NamedTuple):
    """The frame, its scans, and the segments of tables and colour information that precede the first scan.

    `segments` are ranges of bytes; `first_scan` is the offset of the first scan's marker.
    """

    frame: Frame
    scans: tuple[Scan, ...]
    segments: tuple[slice, ...]
    first_scan: int

    @property
    def table_bytes(self) -> int:
        return sum(part.stop - part.start for part in self.segments)


def read_segments(data: bytes, most: int = MAX_SEGMENTS) -> Iterator[tuple[int, slice]]:
    """Yield the marker and the range of each segment, including the marker, up to the end of the image.

    Raises UnsupportedImage if there are `most` or more.
    """
    position = len(START)
    for _ in range(most):
        marker = _MARKER.search(data, position)
        if marker is None or data[marker.end() - 1] == _END:
            return
        length = int.from_bytes(data[marker.end() : marker.end() + 2])
        position = marker.end() + max(_LENGTH_BYTES, length)
        yield data[marker.end() - 1], slice(marker.start(), position)
    raise UnsupportedImage(f"The JPEG has {most} or more segments. Save a baseline JPEG.")


def read_jpeg(data: bytes, most_segments: int = MAX_SEGMENTS) -> JpegStructure:
    """Read the structure of the first image. Raises CorruptImage, UnsupportedImage."""
    frame: Frame | None = None
    scans: list[Scan] = []
    segments: list[slice] = []
    first_scan = 0
    for marker, part in read_segments(data, most_segments):
        body_start = part.start + 4
        if marker in _FRAMES:
            if frame is not None:  # libjpeg stops decoding here
                break
            frame = _read_frame(marker, data[body_start : part.stop])
        if marker == START_OF_SCAN:
            first_scan = first_scan or part.start
            scans.append(_read_scan(data[body_start : part.stop]))
        elif not scans and not _is_unneeded(marker, data, body_start, part.stop):
            segments.append(part)
    if frame is None or not scans:
        raise CorruptImage("The JPEG data has no frame or no scan. Check that the file is complete.")
    return JpegStructure(frame, tuple(scans), tuple(segments), first_scan)


def _is_unneeded(marker: int, data: bytes, start: int, stop: int) -> bool:
    """Whether the segment does not affect pixels. JFIF and Adobe segments do: they determine the colour space.

    Pillow does not skip segments with reserved markers. It would search their content and all data after it, byte by
    byte, for another marker.
    """
    if marker in (_APP0, _APP14):
        return not data.startswith((b"JFIF", b"Adobe"), start, stop)
    return _APP0 <= marker <= _APP15 or marker == _COMMENT or marker in _RESERVED


def _read_frame(marker: int, body: bytes) -> Frame:
    count = body[5] if len(body) > 5 else 0
    if len(body) < 6 + 3 * count or count == 0:
        raise CorruptImage("The JPEG's frame header is incomplete. Check that the file is complete.")
    if count > MAX_COMPONENTS:
        raise CorruptImage(f"The JPEG's frame has {count} components; the limit is {MAX_COMPONENTS}. Save it again.")
    height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    samplings = [(body[at], body[at + 1] >> 4, body[at + 1] & 15) for at in range(6, 6 + 3 * count, 3)]
    widest = max(1, *[horizontal for _, horizontal, _ in samplings])
    highest = max(1, *[vertical for _, _, vertical in samplings])
    components = [
        Component(identifier, _count_blocks(width, horizontal, widest) * _count_blocks(height, vertical, highest))
        for identifier, horizontal, vertical in samplings
    ]
    return Frame(marker, body[0], width, height, tuple(components))


def _count_blocks(pixels: int, sampling: int, largest: int) -> int:
    """Return the number of blocks on one side, padded to whole groups."""
    sampling = max(1, sampling)
    blocks = -(-pixels * sampling // (8 * largest))  # rounded up, as the groups are
    return -(-blocks // sampling) * sampling


def _read_scan(body: bytes) -> Scan:
    count = body[0] if body else 0
    if len(body) < 4 + 2 * count:
        raise CorruptImage("A scan header of the JPEG is incomplete. Check that the file is complete.")
    if not 1 <= count <= MAX_COMPONENTS:
        raise CorruptImage(
            f"A scan of the JPEG has {count} components; it can have 1 to {MAX_COMPONENTS}. Save it again."
        )
    first, last = body[1 + 2 * count], body[2 + 2 * count]
    return Scan(tuple(body[1 : 1 + 2 * count : 2]), min(64, max(1, last - first + 1)))
