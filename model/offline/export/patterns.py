"""Generate images for comparing two versions of a model. They are the same in every run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.offline.changes import Pixels


def generate_images(count: int, size: tuple[int, int]) -> list[Pixels]:
    """Generate flat colours, gradients, checkerboards, clouds, noise and roofs, each uint8 [height, width, 3].

    `size` is (width, height). The fixed seed makes the images the same in every run.
    """
    generator = np.random.default_rng(64)
    patterns = (_flat, _gradient, _checkerboard, _clouds, _noise, _roofs)
    return [patterns[index % len(patterns)](generator, size) for index in range(count)]


def _flat(generator: np.random.Generator, size: tuple[int, int]) -> Pixels:
    width, height = size
    return np.broadcast_to(generator.integers(0, 256, 3, np.uint8), (height, width, 3))


def _gradient(generator: np.random.Generator, size: tuple[int, int]) -> Pixels:
    width, height = size
    start, end = generator.uniform(0, 255, (2, 3))
    turns = int(generator.integers(4))
    rows, columns = (height, width) if turns % 2 == 0 else (width, height)
    share = np.linspace(0, 1, rows)[:, None]
    image: NDArray[np.float64] = np.broadcast_to((start + (end - start) * share)[:, None, :], (rows, columns, 3))
    return np.rot90(image, turns).astype(np.uint8)


def _checkerboard(generator: np.random.Generator, size: tuple[int, int]) -> Pixels:
    width, height = size
    y, x = np.mgrid[0:height, 0:width] // generator.integers(2, 65)
    first, second = generator.integers(0, 256, (2, 3), np.uint8)
    image: Pixels = np.where((x + y)[..., None] % 2, first, second)
    return image


def _clouds(generator: np.random.Generator, size: tuple[int, int]) -> Pixels:
    coarse = generator.integers(0, 256, (*generator.integers(3, 33, 2), 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size))


def _noise(generator: np.random.Generator, size: tuple[int, int]) -> Pixels:
    width, height = size
    return generator.integers(0, 256, (height, width, 3), np.uint8)


def _roofs(generator: np.random.Generator, size: tuple[int, int]) -> Pixels:
    image = _clouds(generator, size).copy()
    for top, left, height, width in generator.integers(8, 200, (12, 4)):
        image[top : top + height // 3, left : left + width // 3] = generator.integers(0, 256, 3, np.uint8)
    return image
