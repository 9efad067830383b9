"""The image changes of `atalaya evaluate --robustness`: other light, other cameras and coarser ground resolutions."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # [height, width, 3]

CLEAN = "clean"  # the name of `leave_unchanged`

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_WARM = np.array([1.15, 1.0, 0.85], np.float32)


def leave_unchanged(pixels: Pixels) -> Pixels:
    return pixels


def scale_light(pixels: Pixels, gain: float) -> Pixels:
    """Multiply every value by `gain`, limited to white."""
    return round_pixels(pixels * np.float32(gain))


def remove_colour(pixels: Pixels) -> Pixels:
    """Replace each pixel's colour with its luminance."""
    return round_pixels(np.repeat((pixels @ LUMINANCE)[..., np.newaxis], 3, axis=-1))


def warm(pixels: Pixels) -> Pixels:
    """Multiply red by 1.15 and blue by 0.85."""
    return round_pixels(pixels * _WARM)


def add_noise(pixels: Pixels, deviation: float) -> Pixels:
    """Add Gaussian noise to every value; the same image always gets the same noise."""
    generator = np.random.default_rng(zlib.crc32(pixels.tobytes()))
    return round_pixels(pixels + generator.normal(0, deviation, pixels.shape))


def coarsen(pixels: Pixels, factor: float) -> Pixels:
    """Reduce the ground resolution by `factor`.

    The smaller image is centred in one of the original size, whose borders are filled by mirroring at its edges.
    """
    height, width = pixels.shape[:2]
    size = (round(width / factor), round(height / factor))
    return mirror_borders(np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)), height, width)


def mirror_borders(pixels: Pixels, height: int, width: int) -> Pixels:
    """Centre the image in one of at least this size, and fill the borders by mirroring at its edges."""
    rows, columns = max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1])
    borders = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    return np.pad(pixels, borders, mode="reflect")


# Their mean accuracy is the robustness of a model.
SIX_CHANGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "brightness x1.4": partial(scale_light, gain=1.4),
    "brightness x0.6": partial(scale_light, gain=0.6),
    "grey": remove_colour,
    "warm cast": warm,
    "Gaussian noise, sd 10": partial(add_noise, deviation=10),
    "ground resolution x1.5": partial(coarsen, factor=1.5),
}
ALL_CHANGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    **SIX_CHANGES,
    "ground resolution x2": partial(coarsen, factor=2),
}


def round_pixels(values: NDArray[np.floating]) -> Pixels:
    """Round to integers in 0..255."""
    rounded: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
