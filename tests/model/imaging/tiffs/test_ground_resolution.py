"""The ground resolution of GeoTIFFs, and the warning about one that does not fit the model."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import tifffile

from model.imaging.decode import decode_image
from model.imaging.ground_resolution import compute_scaled_resolution, describe_mismatch
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from tests.support.images import geotiffs
from tests.support.images.geotiffs import (
    ANGULAR_UNITS,
    DOUBLE,
    GEO_KEYS,
    GEOGRAPHIC,
    LINEAR_UNIT_SIZE,
    LINEAR_UNITS,
    MODEL_TYPE,
    PIXEL_SCALE,
    PROJECTED,
    PROJECTED_SYSTEM,
    SHORT,
    TIEPOINTS,
    ExtraTag,
    describe_system,
    georeference,
    georeference_by_matrix,
    make_tag,
)

METRES = {MODEL_TYPE: PROJECTED, LINEAR_UNITS: 9001}
DEGREES = {MODEL_TYPE: GEOGRAPHIC, ANGULAR_UNITS: 9102}
# A unit whose size in metres is one of the doubles. The keys are signed, so that indices can be negative.
SIGNED_SHORT, UNIT = 8, (LINEAR_UNITS, 0, 1, 32767, LINEAR_UNIT_SIZE, geotiffs.GEO_DOUBLES - 65_536, 1)
TURNED = (0.3, 0.4, 0, 5e5, 0.4, -0.3, 0, 5e6, 0, 0, 0, 0, 0, 0, 0, 1)


def read_resolution(
    tags: Sequence[ExtraTag], *, bigtiff: bool = False, byteorder: Literal["<", ">"] = "<"
) -> float | None:
    buffer = io.BytesIO()
    pixels = np.zeros((8, 8, 3), np.uint8)
    tifffile.imwrite(
        buffer, pixels, photometric="rgb", metadata=None, extratags=tags, bigtiff=bigtiff, byteorder=byteorder
    )
    return decode_image(buffer.getvalue(), DEFAULT_INPUT).ground_resolution_m


@pytest.mark.parametrize(
    ("tags", "metres"),
    [
        ([*georeference(0.3), *describe_system(METRES)], 0.3),
        ([*georeference(10), *describe_system({MODEL_TYPE: PROJECTED, PROJECTED_SYSTEM: 32633})], 10),
        ([*georeference(1), *describe_system({**METRES, LINEAR_UNITS: 9002})], 0.3048),
        ([*georeference(2), *describe_system({**METRES, LINEAR_UNITS: 9003})], 0.6096),
        ([*georeference(2), *describe_system({**METRES, LINEAR_UNITS: 32767, LINEAR_UNIT_SIZE: 0.25})], 0.5),
        ([*georeference_by_matrix(TURNED), *describe_system(METRES)], 0.5),
        ([*georeference(1e-5, top=0.0), *describe_system(DEGREES)], 1.113),
        ([*georeference(1e-5, top=60.0), *describe_system(DEGREES)], 0.7871),
        ([*georeference(1e-5, top=-60.0), *describe_system({MODEL_TYPE: GEOGRAPHIC})], 0.7871),
        # At 60 degrees north, which is 8,399,738 in this projection, lengths are doubled.
        ([*georeference(0.6, top=8_399_738), *describe_system({**METRES, PROJECTED_SYSTEM: 3857})], 0.3),
        (georeference(0.3), None),
        (describe_system(METRES), None),
        ([*georeference(0.3), *describe_system({MODEL_TYPE: 3})], None),
        ([*georeference(0.3), *describe_system({**METRES, LINEAR_UNITS: 9999})], None),
        ([*georeference(0.3), *describe_system({**DEGREES, ANGULAR_UNITS: 9101})], None),
        ([], None),
    ],
)
def test_the_side_of_a_pixel_is_read_in_metres(tags: list[ExtraTag], metres: float | None) -> None:
    """Feet, other units and degrees are converted to metres; without a known unit the resolution is unknown."""
    assert read_resolution(tags) == metres


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_every_kind_of_directory_is_read(bigtiff: bool, order: Literal["<", ">"]) -> None:
    """Byte order and BigTIFF make no difference."""
    tags = [*georeference(0.3), *describe_system({**METRES, LINEAR_UNITS: 32767, LINEAR_UNIT_SIZE: 1.0})]
    assert read_resolution(tags, bigtiff=bigtiff, byteorder=order) == 0.3


@pytest.mark.parametrize("side", [math.nan, math.inf, -math.inf, 0.0, 1e-300, 1e300])
@pytest.mark.parametrize("system", [METRES, DEGREES, {**METRES, PROJECTED_SYSTEM: 3857}], ids=["m", "degrees", "web"])
def test_impossible_sides_are_ignored(side: float, system: dict[int, int]) -> None:
    """A side that is not a number, zero, tiny or huge gives no resolution and no error."""
    assert read_resolution([*georeference(side, top=45.0), *describe_system(system)]) is None
    assert read_resolution([*georeference_by_matrix([side] * 16), *describe_system(system)]) is None


@pytest.mark.parametrize(
    "tags",
    [
        [*georeference(1e-5, top=90.1), *describe_system(DEGREES)],
        [*georeference(0.3, top=1e300), *describe_system({**METRES, PROJECTED_SYSTEM: 3857})],
        [*georeference(0.3), *describe_system({**METRES, LINEAR_UNITS: 32767, LINEAR_UNIT_SIZE: -1.0})],
        [*georeference(0.3), *describe_system({**METRES, LINEAR_UNITS: 32767, LINEAR_UNIT_SIZE: math.nan})],
        [make_tag(PIXEL_SCALE, DOUBLE, (0.3,)), *georeference(0.3)[1:], *describe_system(METRES)],
        [georeference(0.3)[0], make_tag(TIEPOINTS, DOUBLE, (0.0,)), *describe_system(METRES)],
        [*georeference(0.3), make_tag(GEO_KEYS, SHORT, (1, 1, 0, 65_535, MODEL_TYPE))],
        [*georeference(0.3), make_tag(GEO_KEYS, SHORT, (1, 1, 0, 1, MODEL_TYPE, geotiffs.GEO_DOUBLES, 1, 65_535))],
        *(
            [
                *georeference(0.3),
                make_tag(GEO_KEYS, SIGNED_SHORT, (1, 1, 0, 1, MODEL_TYPE, 0, 1, PROJECTED, *UNIT, index)),
                make_tag(geotiffs.GEO_DOUBLES, DOUBLE, (0.5,)),
            ]
            for index in (-1, -2)
        ),
    ],
    ids=["latitude", "northing", "negative", "nan", "scale", "tiepoint", "truncated", "outside", "last", "before"],
)
def test_damaged_georeferences_are_ignored(tags: list[ExtraTag]) -> None:
    """Tags that are truncated, invalid or refer to missing numbers give no resolution and no error."""
    assert read_resolution(tags) is None


def test_the_scaled_image_counts() -> None:
    """The ground resolution is that of the scaled image: halving the sides doubles the side of a pixel."""
    assert compute_scaled_resolution(0.3, 512, 512, DEFAULT_INPUT) == pytest.approx(0.6)
    assert compute_scaled_resolution(0.3, 64, 256, DEFAULT_INPUT) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("resolution", "side", "warned"),
    [(0.3, 256, False), (0.3, 512, False), (0.3, 520, True), (0.3, 128, False), (0.3, 126, True), (10, 256, True)],
)
def test_more_than_a_factor_of_two_is_a_mismatch(resolution: float, side: int, warned: bool) -> None:
    """A resolution that differs from the model's by more than a factor of two causes a warning."""
    assert (describe_mismatch(resolution, side, side, InputSpec(ground_resolution_m=0.3)) is not None) == warned


def test_unknown_resolutions_are_no_mismatch() -> None:
    """If the ground resolution of the image or of the model is unknown, there is no warning."""
    assert describe_mismatch(None, 9, 9, InputSpec(ground_resolution_m=0.3)) is None
    assert describe_mismatch(10, 9, 9, InputSpec()) is None


def test_the_mismatch_says_which_image_to_use() -> None:
    """The warning names both resolutions and the extent that fits the model."""
    text = describe_mismatch(10, 256, 256, InputSpec(ground_resolution_m=0.3))
    assert text == (
        "A pixel of the scaled image covers 10 m on the ground, but 0.3 m in the images that the model was trained "
        "with. Use an image of about 77 by 77 m."
    )
