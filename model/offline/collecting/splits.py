"""Splitting images by the hash of their content, so that a data set that grows keeps each image in its split."""

from __future__ import annotations

from enum import StrEnum

_DIGITS = 8  # of the hash, in hex


class Split(StrEnum):
    """The values are the names of the folders that `atalaya train` and `atalaya evaluate` read."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def choose_split(sha256: str) -> Split:
    """Return the split of the image with that SHA-256, in hex: 80 % train, 10 % validation, 10 % test."""
    position = int(sha256[:_DIGITS], 16) / 16**_DIGITS
    if position < 0.1:
        return Split.TEST
    return Split.VALIDATION if position < 0.2 else Split.TRAIN
