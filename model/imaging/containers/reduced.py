"""The result of reducing an image file to its first frame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReducedFile:
    """A valid file with the pixels of the first frame and nothing else.

    `buffer_bytes` is what the decoder allocates beside the decoded image, as far as the structure of the file
    determines it: coefficients, strips, prefix codes. `size`, width and height, is known where Pillow would copy the
    whole file to find it.
    """

    data: bytes
    buffer_bytes: int = 0
    size: tuple[int, int] | None = None
