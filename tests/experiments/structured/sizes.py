"""Sizes of images, most of them small."""

from __future__ import annotations

from random import Random

_AREAS = (4_096, 4_096, 65_536, 65_536, 65_536, 1_000_000)
_LARGE_AREAS = (8_000_000, 49_000_000)
_LARGE_SHARE = 0.03
_MAX_SIDE = 65_000


def choose_size(random: Random, area: int | None = None) -> tuple[int, int]:
    """Choose width and height of any proportion. Without an `area`, at most 49 megapixels and usually far fewer."""
    area = area or random.choice(_LARGE_AREAS if random.random() < _LARGE_SHARE else _AREAS)
    width = round(area**0.5 * 2 ** random.uniform(-4, 4)) if random.random() < 0.5 else round(area**0.5)
    width = min(max(width, 1), area, _MAX_SIDE)
    return width, min(max(1, area // width), _MAX_SIDE)
