"""Find near duplicates: the same picture at another size, quality or format, but not turned or cropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.imaging.decode import decode_image
from model.imaging.input_spec import InputSpec

MAX_DIFFERENT_BITS = 4
_GRID = InputSpec(width=9, height=8, resize_filter="box")


def compute_difference_hash(data: bytes) -> int:
    """Return 64 bits: whether each cell of a grid is brighter than its right neighbour (dHash, N. Krawetz, 2013).

    Raises a subclass of ImageRejected.
    """
    grey = decode_image(data, _GRID).pixels.astype(np.uint16).sum(axis=2)
    bits = grey[:, :-1] > grey[:, 1:]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def group_similar(hashes: Sequence[int]) -> list[int]:
    """Return for each image the index of the first image of its group.

    Images whose hashes differ in at most MAX_DIFFERENT_BITS are in one group, and so are images that other images
    connect in this way.
    """
    earliest: dict[int, int] = {}
    for index, value in enumerate(hashes):
        earliest.setdefault(value, index)  # images of a single colour have equal hashes
    distinct = _group_distinct(list(earliest))
    images = list(earliest.values())
    group = {value: images[first] for value, first in zip(earliest, distinct, strict=True)}
    return [group[value] for value in hashes]


def _group_distinct(hashes: Sequence[int]) -> list[int]:
    values = np.asarray(hashes, np.uint64)
    first = list(range(len(values)))
    for index in range(1, len(values)):
        for other in _find_similar(values[:index], values[index]):
            _join(first, index, int(other))
    return [_find_first(first, index) for index in range(len(first))]


def _find_similar(earlier: NDArray[np.uint64], value: np.uint64) -> NDArray[np.intp]:
    return np.flatnonzero(np.bitwise_count(earlier ^ value) <= MAX_DIFFERENT_BITS)


def _join(first: list[int], one: int, other: int) -> None:
    """Merge the groups of two images. The earlier of their first images becomes the first of the group."""
    low, high = sorted((_find_first(first, one), _find_first(first, other)))
    first[high] = low


def _find_first(first: list[int], index: int) -> int:
    while first[index] != index:
        first[index] = first[first[index]]  # shorten the path for the next search
        index = first[index]
    return index
