"""Read the TIFF tags that describe the samples and the location on the ground. Faulty tags never reject the image."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from enum import IntEnum

from model.errors import ImageRejected
from model.imaging.containers.tiff_directory import Entry, read_entries


class MetadataTag(IntEnum):
    """Tags of TIFF 6.0, of GeoTIFF 1.1 (OGC 19-008r4) and of GDAL."""

    MAX_SAMPLE_VALUE = 281
    S_MAX_SAMPLE_VALUE = 341  # SMaxSampleValue
    PIXEL_SCALE = 33550
    TIEPOINTS = 33922
    TRANSFORMATION = 34264
    GEO_KEYS = 34735
    GEO_DOUBLES = 34736
    NODATA = 42113


Metadata = Mapping[int, tuple[float, ...]]
"""Finite numbers by tag."""

# The maximum number of values read from each tag.
_MAX_VALUES = {
    MetadataTag.MAX_SAMPLE_VALUE: 16,
    MetadataTag.S_MAX_SAMPLE_VALUE: 16,
    MetadataTag.PIXEL_SCALE: 3,
    MetadataTag.TIEPOINTS: 6,
    MetadataTag.TRANSFORMATION: 16,
    MetadataTag.GEO_KEYS: 1_024,
    MetadataTag.GEO_DOUBLES: 256,
    MetadataTag.NODATA: 32,
}
_TEXT = 2
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q", 17: "q"}


def read_metadata(data: bytes) -> Metadata:
    """Read the tags of the first directory. Tags that are damaged or contain non-finite numbers are left out."""
    values: dict[int, tuple[float, ...]] = {}
    try:
        for entry in read_entries(data):
            if entry.tag in _MAX_VALUES and entry.tag not in values:
                values[entry.tag] = _read_numbers(data, entry)
    except ImageRejected:  # a damaged directory has been reported already if the pixels depend on it
        pass
    return {tag: numbers for tag, numbers in values.items() if numbers}


def _read_numbers(data: bytes, entry: Entry) -> tuple[float, ...]:
    """Return the numbers of an entry; none if it is unusable."""
    code = "s" if entry.kind == _TEXT else _NUMBERS.get(entry.kind)
    if code is None or entry.number < 1:
        return ()
    number = min(entry.number, _MAX_VALUES[MetadataTag(entry.tag)])
    try:
        start = entry.locate(data, struct.calcsize("=" + code))
        values = struct.unpack_from(f"{entry.layout.order}{number}{code}", data, start)
        numbers = (float(values[0].partition(b"\0")[0]),) if entry.kind == _TEXT else tuple(map(float, values))
    except (ImageRejected, struct.error, ValueError, OverflowError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
