"""Drawing an explanation over its image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.explanation.overlay import draw_overlay

GREY = np.full((96, 160, 3), 128, np.uint8)
CENTRED = (0.0, 0.0)


def brightness(png: bytes) -> NDArray[np.float64]:
    """The luma of each pixel."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image.convert("L"), np.float64)


def centre_of_brightness(png: bytes) -> tuple[float, float]:
    """Row and column of the centre of mass of the brightness above the median."""
    weights = brightness(png)
    weights -= np.median(weights)
    rows, columns = np.mgrid[0 : weights.shape[0], 0 : weights.shape[1]] + 0.5
    return float(np.average(rows, weights=weights)), float(np.average(columns, weights=weights))


def heat_at(row: int, column: int) -> NDArray[np.float32]:
    heat = np.zeros((6, 10), np.float32)
    heat[row, column] = 1
    return heat


def test_overlay_has_the_size_of_the_image() -> None:
    """The picture is an RGB PNG with the width and height of the model's input."""
    assert brightness(draw_overlay(GREY, heat_at(0, 0), CENTRED)).shape == (96, 160)


@pytest.mark.parametrize(("row", "column"), [(1, 1), (1, 8), (4, 1), (4, 8), (3, 5)])
def test_bright_area_is_where_the_heat_is(row: int, column: int) -> None:
    """Each position of the map covers its own part of the picture: it is not mirrored, rotated or shifted."""
    centre = centre_of_brightness(draw_overlay(GREY, heat_at(row, column), CENTRED))
    assert centre == pytest.approx((row * 16 + 8, column * 16 + 8), abs=0.5)


def test_offset_moves_the_heat_down_and_right() -> None:
    """The offset, in rows and columns of the map, moves the heat down and right; a negative one, up and left."""
    moved = centre_of_brightness(draw_overlay(GREY, heat_at(2, 5), (0.5, -0.75)))
    assert moved == pytest.approx((2.5 * 16 + 8, 4.25 * 16 + 8), abs=0.5)


def test_what_leaves_the_picture_by_the_offset_is_replaced_by_the_edge() -> None:
    """With an offset of one row, the first row of the map is repeated at the top."""
    heat = heat_at(0, 5)
    values = brightness(draw_overlay(GREY, heat, (1.0, 0.0)))
    assert values[4, 88] == values[20, 88] > values[60, 88]


def test_colours_grow_brighter_with_the_heat() -> None:
    """Over a uniform image, more heat is always brighter."""
    ramp = np.linspace(0, 1, 160, dtype=np.float32)[None]
    luminance = brightness(draw_overlay(GREY, np.repeat(ramp, 2, axis=0), CENTRED))[48]
    assert (np.diff(luminance) >= 0).all()
    assert luminance[-1] - luminance[0] > 80


def test_image_remains_visible() -> None:
    """Under uniform heat, differences in the image remain visible."""
    pixels = GREY.copy()
    pixels[:, 80:] = 255
    values = brightness(draw_overlay(pixels, np.zeros((6, 10), np.float32), CENTRED))
    assert values[:, 100].min() - values[:, 60].max() > 40
