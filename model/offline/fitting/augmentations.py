"""Change light, colour, sensor and scale randomly, far more than they vary within one flight."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.offline.changes import LUMINANCE, Pixels, mirror_borders, round_pixels

Change = Callable[[np.random.Generator, Pixels], Pixels]


def change_randomly(pixels: Pixels, seed: int) -> Pixels:
    """Change the scale, the light and the colour, then add noise, blur, JPEG artefacts or nothing. Keeps the size.

    The same image and seed always give the same result.
    """
    generator = np.random.default_rng([seed, zlib.crc32(pixels.tobytes())])
    changed = change_colour(generator, change_scale(generator, pixels))
    faults: tuple[Change, ...] = (_keep, _add_noise, _blur, _compress)
    return faults[generator.integers(len(faults))](generator, changed)


def change_mostly(pixels: Pixels, seed: int) -> Pixels:
    """Leave one image in four unchanged, and change the others randomly."""
    is_kept = zlib.crc32(pixels.tobytes(), seed) % 4 == 0
    return pixels if is_kept else change_randomly(pixels, seed)


def change_colour(generator: np.random.Generator, pixels: Pixels) -> Pixels:
    """Scale light by 0.5 to 1.8, each channel by 0.8 to 1.2, saturation by 0 to 1.7; apply a gamma of 0.7 to 1.4."""
    values: NDArray[np.floating] = pixels.astype(np.float32)
    grey = (values @ LUMINANCE)[..., np.newaxis]
    values = grey + (values - grey) * np.float32(generator.uniform(0, 1.7))
    gains = np.exp2(generator.uniform(-1, 0.85)) * generator.uniform(0.8, 1.2, 3)
    shares = np.clip(values * gains.astype(np.float32) / 255, 0, 1)
    return round_pixels(255 * shares ** np.float32(generator.uniform(0.7, 1.4)))


def change_scale(generator: np.random.Generator, pixels: Pixels) -> Pixels:
    """Scale the image by 0.45 to 2, then crop a random part or add mirrored borders to keep its size."""
    height, width = pixels.shape[:2]
    factor = float(np.exp(generator.uniform(np.log(0.45), np.log(2))))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    scaled = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    scaled = mirror_borders(scaled, height, width)
    top, left = (int(generator.integers(side + 1)) for side in np.subtract(scaled.shape[:2], (height, width)))
    return scaled[top : top + height, left : left + width]


def _keep(_: np.random.Generator, pixels: Pixels) -> Pixels:
    return pixels


def _add_noise(generator: np.random.Generator, pixels: Pixels) -> Pixels:
    return round_pixels(pixels + generator.normal(0, generator.uniform(2, 16), pixels.shape))


def _blur(generator: np.random.Generator, pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(generator.uniform(0.4, 1.6))))


def _compress(generator: np.random.Generator, pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(generator.integers(15, 71)))
    return np.asarray(Image.open(buffer))
