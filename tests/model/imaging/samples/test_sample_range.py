"""The range from which 16-bit samples are scaled."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.imaging.sample_range import FULL_RANGE, NO_HINTS, RangeHints, SampleRange, find_alpha_range, find_range

SENSOR = SampleRange(2_047, "11_to_8")


def count(samples: NDArray[np.int64] | list[int]) -> NDArray[np.int64]:
    return np.bincount(np.asarray(samples) >> 8, minlength=256)


@pytest.mark.parametrize(
    ("largest", "scaling"),
    [
        (200, "8_to_8"),
        (255, "8_to_8"),
        (256, "10_to_8"),
        (1_023, "10_to_8"),
        (1_024, "11_to_8"),
        (2_047, "11_to_8"),
        (2_048, "12_to_8"),
        (4_095, "12_to_8"),
        (4_096, "reflectance_to_8"),
        (10_000, "reflectance_to_8"),
        (10_240, "14_to_8"),
        (16_383, "14_to_8"),
        (16_384, "16_to_8"),
        (65_535, "16_to_8"),
    ],
)
def test_the_largest_sample_decides_the_range(largest: int, scaling: str) -> None:
    """The range is the smallest range of a sensor that contains all samples."""
    assert find_range(count(np.linspace(0, largest, 500, dtype=np.int64))).scaling == scaling


@pytest.mark.parametrize(("outliers", "scaling"), [(1, "11_to_8"), (2, "reflectance_to_8")])
def test_one_sample_in_a_thousand_may_be_an_outlier(outliers: int, scaling: str) -> None:
    """One bright sample in a thousand, such as a hot pixel or a glint, does not widen the range, but two do."""
    samples = np.concatenate([np.linspace(0, 2_000, 1_000 - outliers, dtype=np.int64), np.full(outliers, 9_000)])
    assert find_range(count(samples)).scaling == scaling


@pytest.mark.parametrize("fill", [0, 65_535])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_missing_data_does_not_change_the_range(fill: int, share: float) -> None:
    """Borders of zeros or of the largest number do not change the range."""
    ground = np.linspace(1, 1_900, 10_000, dtype=np.int64)
    border = np.full(round(10_000 * share / (1 - share)), fill)
    assert find_range(count(np.concatenate([ground, border]))) == SENSOR


def test_declared_missing_data_does_not_change_the_range() -> None:
    """The value that a file declares for missing data is ignored, wherever it lies."""
    samples = count([*range(0, 2_000, 2), *[32_767] * 500])
    assert find_range(samples) == FULL_RANGE
    assert find_range(samples, RangeHints(nodata=32_767)) == SENSOR
    assert find_range(count([1_500] * 9), RangeHints(nodata=0)) == SENSOR


def test_a_declared_maximum_widens_the_range_only() -> None:
    """A dark picture of a sensor with a declared maximum stays dark; a maximum below the samples has no effect."""
    dark = count(np.linspace(0, 300, 500, dtype=np.int64))
    assert find_range(dark) == SampleRange(1_023, "10_to_8")
    assert find_range(dark, RangeHints(maximum=2_047)) == SENSOR
    assert find_range(dark, RangeHints(maximum=40_000)) == FULL_RANGE
    assert find_range(dark, RangeHints(maximum=100)) == find_range(dark, NO_HINTS)
    # Some writers declare the largest 16-bit number, whatever the samples are.
    assert find_range(dark, RangeHints(maximum=65_535)) == find_range(dark, NO_HINTS)


def test_an_image_that_consists_of_missing_data_has_a_range() -> None:
    """An image that is entirely black or entirely white stays so."""
    for value in (0, 65_535):
        table = find_range(count([value] * 100)).make_table()
        assert table[value] == (255 if value else 0)


def test_the_full_range_keeps_high_bytes() -> None:
    """The full range keeps the high byte of each sample: 0x1234 becomes 0x12."""
    assert np.array_equal(FULL_RANGE.make_table(), np.arange(65_536) >> 8)


def test_samples_are_scaled_to_the_nearest_level() -> None:
    """White and brighter samples become 255; others are rounded to the nearest level."""
    table = SENSOR.make_table()
    assert np.array_equal(table[:2_048], np.round(np.arange(2_048) * 255 / 2_047))
    assert (table[2_047:] == 255).all()


@pytest.mark.parametrize(
    ("largest", "expected"), [(255, "8_to_8"), (2_047, "11_to_8"), (4_000, "16_to_8"), (65_535, "16_to_8")]
)
def test_alpha_has_a_range_of_its_own(largest: int, expected: str) -> None:
    """The range of alpha is the smallest of 8 bits, the range of the colours and 16 bits that contains it."""
    assert find_alpha_range(largest >> 8, SENSOR).scaling == expected
