"""Split images by the hash of their content, so that each image keeps its split when the data set grows."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

_DIGITS = 8  # of the hash, in hex


class Split(StrEnum):
    """The values are the names of the folders that `atalaya train` and `atalaya evaluate` read.

    An image can later move from one split to an earlier one in this order, but not to a later one.
    """

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def choose_split(sha256: str) -> Split:
    """Return the split of the image with this SHA-256 in hex: 80 % train, 10 % validation, 10 % test."""
    position = int(sha256[:_DIGITS], 16) / 16**_DIGITS
    if position < 0.1:
        return Split.TEST
    return Split.VALIDATION if position < 0.2 else Split.TRAIN


def choose_split_of_group(first: str, earlier: Collection[Split]) -> Split:
    """Return the split of near duplicates. `first` is the SHA-256 of the oldest one.

    If some of them have a split already, the group gets the first of train, validation and test among these, so that
    no image that a model was trained on becomes a test image.
    """
    return min(earlier, key=list(Split).index) if earlier else choose_split(first)
