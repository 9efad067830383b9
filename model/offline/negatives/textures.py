"""Noise and plain surfaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.offline.changes import Pixels

Size = tuple[int, int]  # width, height


def make_white_noise(generator: np.random.Generator, size: Size) -> Pixels:
    """Independent pixels, in colour or grey."""
    width, height = size
    channels = 3 if generator.random() < 0.6 else 1
    return _to_pixels(
        generator.normal(generator.uniform(60, 200), generator.uniform(20, 90), (height, width, channels))
    )


def make_coloured_noise(generator: np.random.Generator, size: Size) -> Pixels:
    """Noise whose amplitude falls with the spatial frequency."""
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    falloff = np.maximum(frequency, 1 / max(size)) ** -generator.uniform(0.4, 1.2)
    spectrum = np.fft.fft2(generator.normal(size=(height, width, 3)), axes=(0, 1))
    noise = np.fft.ifft2(spectrum * falloff[..., None], axes=(0, 1)).real
    return _to_pixels(generator.uniform(80, 180, 3) + noise / noise.std() * generator.uniform(20, 60))


def make_static(generator: np.random.Generator, size: Size) -> Pixels:
    """Black and white blocks of one to four pixels, like a television without a signal."""
    width, height = size
    block = int(generator.integers(1, 5))
    cells = generator.random((-(-height // block), -(-width // block), 1)) < generator.uniform(0.2, 0.8)
    return _to_pixels(np.kron(cells, np.ones((block, block, 1)))[:height, :width] * 255)


def make_line_noise(generator: np.random.Generator, size: Size) -> Pixels:
    """Rows or columns of random brightness with some noise, like those of a broken sensor."""
    width, height = size
    lines = generator.normal(128, generator.uniform(30, 80), (height, 1, 3))
    image = lines + generator.normal(0, 15, (height, width, 3))
    return _to_pixels(image if generator.random() < 0.5 or width != height else image.swapaxes(0, 1))


def make_salt_and_pepper(generator: np.random.Generator, size: Size) -> Pixels:
    """White and black pixels, some of them in colour, scattered over one colour."""
    width, height = size
    image = np.tile(generator.uniform(0, 255, 3), (height, width, 1))
    scattered = generator.random((height, width, 1 if generator.random() < 0.5 else 3))
    share = generator.uniform(0.02, 0.3)
    return _to_pixels(np.where(scattered < share / 2, 0, np.where(scattered > 1 - share / 2, 255, image)))


def make_flat_colour(generator: np.random.Generator, size: Size) -> Pixels:
    """One colour, from black to white, in half of the images with faint noise, like a lens cap or a wall."""
    width, height = size
    noise = generator.normal(0, generator.uniform(0, 6) if generator.random() < 0.5 else 0, (height, width, 3))
    return _to_pixels(generator.uniform(0, 255, 3) + noise)


def make_linear_gradient(generator: np.random.Generator, size: Size) -> Pixels:
    """A transition between two colours in any direction."""
    x, y = _make_axes(size)
    angle = generator.uniform(0, 2 * np.pi)
    return _blend(generator, x * np.cos(angle) + y * np.sin(angle))


def make_radial_gradient(generator: np.random.Generator, size: Size) -> Pixels:
    """A transition from a point to the borders, like that of a lamp on a wall."""
    x, y = _make_axes(size)
    left, top = generator.uniform(0, 1, 2)
    return _blend(generator, np.hypot(x - left, y - top))


def make_bands(generator: np.random.Generator, size: Size) -> Pixels:
    """A few flat stripes, like those of test patterns and flags."""
    x, y = _make_axes(size)
    colours = generator.uniform(0, 255, (int(generator.integers(2, 9)), 3))
    share = x if generator.random() < 0.5 else y
    return _to_pixels(colours[np.minimum((share * len(colours)).astype(int), len(colours) - 1)])


def _make_axes(size: Size) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the horizontal and vertical positions of the pixels from 0 to 1, float [height, width] each."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return x, y


def _blend(generator: np.random.Generator, share: NDArray[np.float64]) -> Pixels:
    start, end = generator.uniform(0, 255, (2, 3))
    scaled = (share - share.min()) / max(float(np.ptp(share)), 1e-9)
    return _to_pixels(start + (end - start) * scaled[..., None])


def _to_pixels(values: NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
