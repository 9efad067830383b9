"""Bounded reads from the bytes of an HDF5 file."""

from __future__ import annotations

import struct
from typing import NoReturn, Protocol

from model.errors import UnsafeModelFile

UNDEFINED = 0xFFFFFFFFFFFFFFFF
_MAX_STEPS = 2_000_000
_MAX_BYTES = 256 << 20  # of structures; data sets are not read


class Data(Protocol):
    """Bytes, or a memory-mapped file."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...


class Reader:
    """Reads at absolute positions. Limits the number of reads and their bytes, and so the time that any file takes."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._steps = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._data)

    def read(self, position: int, length: int) -> bytes:
        """Return exactly `length` bytes. Raises UnsafeModelFile if they are outside the file."""
        self._steps += 1
        self._bytes += length
        if self._steps > _MAX_STEPS or self._bytes > _MAX_BYTES:
            reject("it has too many parts")
        if length < 0 or position < 0 or position + length > len(self._data):
            reject("an address is outside of the file; it is damaged or truncated")
        return self._data[position : position + length]

    def unpack(self, position: int, layout: str) -> tuple[int, ...]:
        """Return little-endian integers, as `struct` does."""
        return struct.unpack("<" + layout, self.read(position, struct.calcsize("<" + layout)))

    def expect(self, position: int, signature: bytes, what: str) -> None:
        """Raise UnsafeModelFile unless `signature` is at `position`."""
        if self.read(position, len(signature)) != signature:
            reject(f"{what} has no signature; it is damaged")


class Cursor:
    """Reads consecutive values from a block in memory."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._position = 0

    def take(self, length: int) -> bytes:
        """Return the next `length` bytes. Raises UnsafeModelFile at the end of the block."""
        start, end = self._position, self._position + length
        if length < 0 or end > len(self._block):
            reject("a message is shorter than its contents")
        self._position = end
        return self._block[start:end]

    def integer(self, size: int) -> int:
        """Return the next little-endian unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    @property
    def remaining(self) -> int:
        """The number of remaining bytes."""
        return len(self._block) - self._position


def reject(problem: str) -> NoReturn:
    """Raise UnsafeModelFile for the HDF5 data."""
    raise UnsafeModelFile(f"The HDF5 data cannot be used: {problem}. Save the model again with Keras.")
