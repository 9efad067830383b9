"""The brightness and sharpness of an image."""

from __future__ import annotations

import numpy as np
import pytest

from model.imaging.statistics import measure_pixels


def make_stripes(dark: int, light: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Columns that alternate between two levels of grey."""
    pixels = np.full((64, 64, 3), dark, np.uint8)
    pixels[:, 1::2] = light
    return pixels


def test_brightness_is_the_mean_level() -> None:
    """The brightness of grey stripes of two levels is their mean."""
    assert measure_pixels(make_stripes(50, 100)).brightness == 75


@pytest.mark.parametrize(("dark", "light"), [(50, 100), (0, 255)])
def test_sharpness_is_the_mean_difference_of_neighbours(dark: int, light: int) -> None:
    """The sharpness of stripes is their contrast, even if it does not fit into a signed byte."""
    assert measure_pixels(make_stripes(dark, light)).sharpness == light - dark


def test_a_single_column_has_no_sharpness() -> None:
    """An image with a single column has a sharpness of 0."""
    assert measure_pixels(np.full((64, 1, 3), 9, np.uint8)) == (9, 0)


def test_rows_between_are_not_read() -> None:
    """Only every eighth row is measured, whatever the other rows contain."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[1::8] = 255
    assert measure_pixels(pixels) == (0, 0)
