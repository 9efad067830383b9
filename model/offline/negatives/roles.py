"""Decide which of the images that are not aerial are for fitting a gate, and which are for testing it."""

from __future__ import annotations

import zlib
from enum import StrEnum


class Role(StrEnum):
    """The use of an image. No image has two roles."""

    FIT = "fit"
    TEST = "test"


def assign_role(category: str) -> Role:
    """Return the role of all photographs of a category, from its name alone. About a third of the categories get TEST.

    Categories that share their first word, such as `cougar_body` and `cougar_face`, have the same role.
    """
    return Role.TEST if zlib.crc32(get_first_word(category).encode()) % 3 == 0 else Role.FIT


def get_first_word(category: str) -> str:
    return category.lower().partition("_")[0]
