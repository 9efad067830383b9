"""The result of reducing an image file to its first frame."""

from __future__ import annotations

from msgspec import Struct


class ReducedFile(Struct, frozen=True):
    """A valid file with the pixels of the first frame and nothing else.

    `buffer_bytes` is what the decoder allocates in addition to the decoded image because of the file's structure:
    coefficients, strips, prefix codes. `size`, (width, height), is set if Pillow would have to copy the whole file to
    find it.
    """

    data: bytes
    buffer_bytes: int = 0
    size: tuple[int, int] | None = None
