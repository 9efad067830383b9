"""Splitting images by the hash of their content, so that a data set that grows keeps each image in its split."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

_DIGITS = 8  # of the hash, in hex


class Split(StrEnum):
    """The values are the names of the folders that `atalaya train` and `atalaya evaluate` read.

    An image with a use in one of them can still serve in those before it.
    """

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def choose_split(sha256: str) -> Split:
    """Return the split of the image with that SHA-256, in hex: 80 % train, 10 % validation, 10 % test."""
    position = int(sha256[:_DIGITS], 16) / 16**_DIGITS
    if position < 0.1:
        return Split.TEST
    return Split.VALIDATION if position < 0.2 else Split.TRAIN


def choose_split_of_group(first: str, known: Collection[Split]) -> Split:
    """Return the split of near duplicates, of which `first` is the SHA-256 of the oldest one.

    It is one of the splits that some of them are in already: training before validation before test, so that no image
    that a model was trained on becomes a test image.
    """
    return min(known, key=list(Split).index) if known else choose_split(first)
