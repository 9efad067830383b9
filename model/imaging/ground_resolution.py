"""Read the ground resolution of GeoTIFFs (OGC 19-008r4), and compare it with that of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator

from model.imaging.containers.tiff_metadata import Metadata, MetadataTag
from model.imaging.input_spec import InputSpec

# Keys of the GeoKeyDirectory.
_MODEL_TYPE, _ANGULAR_UNITS, _PROJECTED_SYSTEM, _LINEAR_UNITS, _LINEAR_UNIT_SIZE = 1024, 2054, 3072, 3076, 3077
_PROJECTED, _GEOGRAPHIC = 1, 2
_METRE, _USER_DEFINED = 9001, 32_767
_METRES = {_METRE: 1.0, 9002: 0.3048, 9003: 1200 / 3937, 9036: 1000.0, 9093: 1609.344, 9096: 0.9144}
_DEGREES = {9102, 9122}
# Spherical Mercator exaggerates lengths by the inverse cosine of the latitude.
_WEB_MERCATOR = {3785, 3857}
_EARTH_RADIUS_M = 6_378_137.0
_METRES_PER_DEGREE = _EARTH_RADIUS_M * math.pi / 180
# From a micrograph to a single pixel of the whole Earth; other values are errors in the file.
_PLAUSIBLE_M = (1e-4, 1e6)
_DIGITS = 4
_MAX_FACTOR = 2.0


def read_ground_resolution(metadata: Metadata, height: int) -> float | None:
    """Return the side of a pixel in metres for an image with `height` rows, or None if the file does not declare it.

    For a pixel that is not square, it is the side of a square with the same area. A projection without a unit is in
    metres.
    """
    try:
        sides = _measure_pixel(metadata, height)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    if sides is None or not all(map(math.isfinite, sides)):
        return None
    side = math.sqrt(sides[0] * sides[1])
    return float(f"{side:.{_DIGITS}g}") if _PLAUSIBLE_M[0] <= side <= _PLAUSIBLE_M[1] else None


def compute_scaled_resolution(resolution_m: float, width: int, height: int, spec: InputSpec) -> float:
    """Return the ground resolution in metres after `width` by `height` pixels are scaled to the model's input."""
    return resolution_m * math.sqrt(width * height / (spec.width * spec.height))


def describe_mismatch(resolution_m: float | None, width: int, height: int, spec: InputSpec) -> str | None:
    """Describe a scaled image that is over twice as coarse or as fine as the model's training images.

    Returns None if it is not, or if either resolution is unknown.
    """
    if resolution_m is None or spec.ground_resolution_m is None:
        return None
    trained = spec.ground_resolution_m
    scaled = compute_scaled_resolution(resolution_m, width, height, spec)
    if trained / _MAX_FACTOR <= scaled <= trained * _MAX_FACTOR:
        return None
    return (
        f"A pixel of the scaled image covers {scaled:.2g} m on the ground, but {trained:.2g} m in the images that the "
        f"model was trained with. Use an image of about {trained * spec.width:.0f} by {trained * spec.height:.0f} m."
    )


def _measure_pixel(metadata: Metadata, height: int) -> tuple[float, float] | None:
    """Return the sides of a pixel in metres, or None."""
    grid = _read_grid(metadata)
    if grid is None:
        return None
    (across, down), top = grid
    keys = dict(_read_keys(metadata))
    middle = top - down * height / 2
    kind = keys.get(_MODEL_TYPE)
    if kind == _GEOGRAPHIC and keys.get(_ANGULAR_UNITS, 9102) in _DEGREES and abs(middle) < 90:
        return across * _METRES_PER_DEGREE * math.cos(math.radians(middle)), down * _METRES_PER_DEGREE
    if kind != _PROJECTED:
        return None
    unit = _find_linear_unit(keys)
    if unit is None or unit <= 0:
        return None
    if keys.get(_PROJECTED_SYSTEM) in _WEB_MERCATOR:
        unit /= math.cosh(middle / _EARTH_RADIUS_M)
    return across * unit, down * unit


def _read_grid(metadata: Metadata) -> tuple[tuple[float, float], float] | None:
    """Return the sides of a pixel and the northing or latitude of the first row, in the reference system's units."""
    scale = metadata.get(MetadataTag.PIXEL_SCALE, ())
    tiepoint = metadata.get(MetadataTag.TIEPOINTS, ())
    if len(scale) >= 2 and len(tiepoint) == 6:
        return (abs(scale[0]), abs(scale[1])), tiepoint[4] + tiepoint[1] * abs(scale[1])
    matrix = metadata.get(MetadataTag.TRANSFORMATION, ())
    if len(matrix) == 16:
        return (math.hypot(matrix[0], matrix[4]), math.hypot(matrix[1], matrix[5])), matrix[7]
    return None


def _find_linear_unit(keys: dict[int, float]) -> float | None:
    """Return the projection's unit in metres, or None if it is unknown."""
    unit = keys.get(_LINEAR_UNITS, _METRE)
    return keys.get(_LINEAR_UNIT_SIZE) if unit == _USER_DEFINED else _METRES.get(int(unit))


def _read_keys(metadata: Metadata) -> Iterator[tuple[int, float]]:
    """Yield the keys with a numeric value, which is in the directory itself or among the doubles."""
    directory = tuple(map(int, metadata.get(MetadataTag.GEO_KEYS, ())))
    doubles = metadata.get(MetadataTag.GEO_DOUBLES, ())
    for start in range(4, len(directory) - 3, 4):
        key, location, _, value = directory[start : start + 4]
        if location == 0:
            yield key, value
        elif location == MetadataTag.GEO_DOUBLES and 0 <= value < len(doubles):
            yield key, doubles[value]
