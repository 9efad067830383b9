"""Find the part of the 16-bit range that the samples of an image use, and scale it to 8 bits."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

MAX_SAMPLE = 65_535
# One sample in a thousand may be brighter than white, so that hot pixels, glints and clouds do not darken the image.
_OUTLIERS_PER_THOUSAND = 1


class SampleRange(Struct, frozen=True):
    """Samples from 0 to `white`, which becomes 255; brighter samples also become 255. `scaling` names the range."""

    white: int
    scaling: str

    def make_table(self) -> NDArray[np.uint8]:
        """Return the 8-bit sample for each 16-bit one, uint8 [65536]. For the full range, it is the high byte."""
        samples = np.arange(MAX_SAMPLE + 1, dtype=np.uint32)
        scaled = samples >> 8 if self == FULL_RANGE else (samples * 255 + self.white // 2) // self.white
        return np.minimum(scaled, 255).astype(np.uint8)


FULL_RANGE = SampleRange(MAX_SAMPLE, "16_to_8")
# The bit depths of sensors, and reflectance in units of 1/10,000, as in Sentinel-2 products.
_PARTIAL_RANGES = (
    SampleRange(255, "8_to_8"),
    SampleRange(1_023, "10_to_8"),
    SampleRange(2_047, "11_to_8"),
    SampleRange(4_095, "12_to_8"),
    SampleRange(10_000, "reflectance_to_8"),
    SampleRange(16_383, "14_to_8"),
)
_FIRST_FULL_BYTE = (_PARTIAL_RANGES[-1].white >> 8) + 1


class RangeHints(Struct, frozen=True):
    """What a file declares about its samples: the largest possible value, and the value for missing data."""

    maximum: int | None = None
    nodata: int | None = None


NO_HINTS = RangeHints()


def find_range(high_bytes: NDArray[np.int64], hints: RangeHints = NO_HINTS) -> SampleRange:
    """Return the smallest range that contains 99.9 % of the samples and the declared maximum.

    `high_bytes` counts samples by their high byte, int64 [256]. Missing data is ignored: samples with the high byte of
    the declared value, unless that byte is 0, and samples of 0xFF00 or more if at most 0.1 % of the remaining samples
    lie between the partial ranges and 0xFF00.
    """
    counts = high_bytes.copy()
    if hints.nodata is not None and hints.nodata >> 8:
        counts[hints.nodata >> 8] = 0
    if 1000 * counts[_FIRST_FULL_BYTE:255].sum() <= _OUTLIERS_PER_THOUSAND * counts.sum():
        counts[255] = 0
    used = int(np.argmax(1000 * np.cumsum(counts) >= (1000 - _OUTLIERS_PER_THOUSAND) * counts.sum()))
    # Writers that do not know the range declare the largest 16-bit number.
    if hints.maximum is not None and hints.maximum < MAX_SAMPLE:
        used = max(used, hints.maximum >> 8)
    return next((partial for partial in _PARTIAL_RANGES if used <= partial.white >> 8), FULL_RANGE)


def find_alpha_range(largest_high_byte: int, colours: SampleRange) -> SampleRange:
    """Return the range of alpha, given the high byte of its largest sample: 8 bits, the colours' range, or 16 bits."""
    if largest_high_byte == 0:
        return _PARTIAL_RANGES[0]
    return colours if largest_high_byte <= colours.white >> 8 else FULL_RANGE
