"""Drawing functions shared by the generators: a canvas, random colours, words and fonts."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.offline.changes import Pixels

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_LETTERS = np.array(list("aaabcdeeeeefghiiijklmnnooopqrrsssttttuuvwxyz"))


class Canvas:
    """A sheet of random size to draw on; `fit` scales it to the size of a model's input."""

    def __init__(self, generator: np.random.Generator, background: Colour, sides: tuple[int, int] = (360, 900)) -> None:
        self.generator = generator
        self.width, self.height = (int(side) for side in generator.integers(*sides, 2))
        self.image = Image.new("RGB", (self.width, self.height), background)
        self.draw = ImageDraw.Draw(self.image)

    def pick(self, low: int, high: int) -> int:
        """Return a whole number from `low` up to, but not including, `high`."""
        return int(self.generator.integers(low, high))

    def write(self, position: tuple[int, int], text: str, size: int, colour: Colour) -> None:
        self.draw.text(position, text, fill=colour, font=load_font(size))

    def write_paragraph(self, left: int, top: int, right: int, lines: int, size: int, colour: Colour) -> int:
        """Write lines of words between `left` and `right`, the last one shorter. Returns the top of the next line."""
        step = size + max(2, size // 3)
        for line in range(lines):
            end = right if line < lines - 1 else left + self.pick(1, max(2, right - left))
            letters = max(1, int((end - left) / (0.52 * size)))
            self.write((left, top + line * step), make_words(self.generator, letters), size, colour)
        return top + lines * step

    def fit(self, size: tuple[int, int]) -> Pixels:
        return np.asarray(self.image.resize(size, Image.Resampling.BICUBIC))


@cache
def load_font(size: int) -> Font:
    """Return Pillow's built-in font, which is the same on every machine."""
    return ImageFont.load_default(size)


def make_words(generator: np.random.Generator, letters: int) -> str:
    """Return words with about this many letters in total."""
    text = "".join(generator.choice(_LETTERS, max(1, letters)))
    words, start = [], 0
    while start < len(text):
        length = int(generator.integers(2, 10))
        words.append(text[start : start + length])
        start += length + 1
    return " ".join(words)


def pick_paper(generator: np.random.Generator) -> Colour:
    """Return white or a light tint."""
    level = int(generator.integers(225, 256))
    tint = generator.integers(-18, 1, 3) if generator.random() < 0.5 else np.zeros(3, int)
    return to_colour(level + tint)


def pick_ink(generator: np.random.Generator) -> Colour:
    """Return black or a dark colour."""
    return to_colour(generator.integers(0, 70) + generator.integers(0, 40, 3))


def pick_colour(generator: np.random.Generator, low: int = 0, high: int = 256) -> Colour:
    return to_colour(generator.integers(low, high, 3))


def to_colour(values: NDArray[np.integer]) -> Colour:
    red, green, blue = (int(value) for value in np.clip(values, 0, 255))
    return red, green, blue
