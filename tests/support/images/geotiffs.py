"""The tags of GeoTIFFs (OGC 19-008r4), for tifffile's `extratags`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DOUBLE, SHORT = 12, 3
PROJECTED, GEOGRAPHIC = 1, 2
MODEL_TYPE, ANGULAR_UNITS, PROJECTED_SYSTEM, LINEAR_UNITS, LINEAR_UNIT_SIZE = 1024, 2054, 3072, 3076, 3077
PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS, GEO_DOUBLES = 33550, 33922, 34264, 34735, 34736

ExtraTag = tuple[int, int, int, Any, bool]


def make_tag(tag: int, kind: int, values: Sequence[float]) -> ExtraTag:
    return tag, kind, len(values), tuple(values), True


def georeference(side: float, top: float = 4_900_000.0, left: float = 500_000.0) -> list[ExtraTag]:
    """Return tags for pixels of `side` in the reference system's units, the first row at northing or latitude `top`."""
    return [
        make_tag(PIXEL_SCALE, DOUBLE, (side, side, 0.0)),
        make_tag(TIEPOINTS, DOUBLE, (0.0, 0.0, 0.0, left, top, 0.0)),
    ]


def georeference_by_matrix(matrix: Sequence[float]) -> list[ExtraTag]:
    return [make_tag(TRANSFORMATION, DOUBLE, matrix)]


def describe_system(keys: Mapping[int, int | float]) -> list[ExtraTag]:
    """Return the tags with the keys of the reference system; floats go into GEO_DOUBLES."""
    entries, doubles = [1, 1, 0, len(keys)], list[float]()
    for key, value in sorted(keys.items()):
        entries += [key, GEO_DOUBLES, 1, len(doubles)] if isinstance(value, float) else [key, 0, 1, value]
        doubles += [value] if isinstance(value, float) else []
    tags = [make_tag(GEO_KEYS, SHORT, entries)]
    return [*tags, make_tag(GEO_DOUBLES, DOUBLE, doubles)] if doubles else tags
