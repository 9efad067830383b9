"""Read prefix codes and symbols from a lossless WebP bitstream (RFC 9649, section 3.7.2)."""

from __future__ import annotations

from collections.abc import Sequence

from model.errors import CorruptImage

_MAX_CODE_BITS = 15
_ROOT_BITS = 8
_CODE_LENGTH_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_REPEAT_PREVIOUS = 16
# By symbol of the code-length code: the minimum number of repetitions, and the number of bits that encode further ones.
_REPETITIONS = {_REPEAT_PREVIOUS: (3, 2), 17: (3, 3), 18: (11, 7)}
_FIRST_PREVIOUS = 8


class BitReader:
    """Reads numbers, least significant bit first. Raises CorruptImage at the end of the data."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self._bits = 8 * len(data)
        self.position = 0

    def peek(self) -> int:
        """Return the next bits, at least 24, without consuming them."""
        start = self.position >> 3
        return int.from_bytes(self._data[start : start + 4], "little") >> (self.position & 7)

    def read(self, count: int) -> int:
        value = self.peek() & ((1 << count) - 1)
        self.skip(count)
        return value

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > self._bits:
            raise CorruptImage("The WebP's pixels end early. Check that the file is complete.")


class PrefixCode:
    """A canonical prefix code, given the code lengths of its symbols. A code with a single symbol takes no bits."""

    def __init__(self, lengths: Sequence[int]) -> None:
        used = [(length, symbol) for symbol, length in enumerate(lengths) if length]
        self.only_symbol = used[0][1] if len(used) == 1 else None
        self._root = [(0, 0)] * (1 << _ROOT_BITS)
        self._long: dict[tuple[int, int], int] = {}
        if self.only_symbol is None:
            self._assign_codes(sorted(used))

    def _assign_codes(self, used: Sequence[tuple[int, int]]) -> None:
        if sum(1 << (_MAX_CODE_BITS - length) for length, _ in used) != 1 << _MAX_CODE_BITS:
            raise CorruptImage("The WebP has an incomplete prefix code. Save the image again.")
        code, previous = -1, 0
        for length, symbol in used:
            code = (code + 1) << max(0, length - previous) if previous else 0
            previous = length
            reversed_code = int(f"{code:0{length}b}"[::-1], 2)
            if length > _ROOT_BITS:
                self._long[length, reversed_code] = symbol
                continue
            for entry in range(reversed_code, 1 << _ROOT_BITS, 1 << length):
                self._root[entry] = symbol, length

    def read(self, bits: BitReader) -> int:
        """Read one symbol."""
        if self.only_symbol is not None:
            return self.only_symbol
        ahead = bits.peek()
        symbol, length = self._root[ahead & ((1 << _ROOT_BITS) - 1)]
        if length == 0:
            symbol, length = self._find_long(ahead)
        bits.skip(length)
        return symbol

    def _find_long(self, ahead: int) -> tuple[int, int]:
        for length in range(_ROOT_BITS + 1, _MAX_CODE_BITS + 1):
            symbol = self._long.get((length, ahead & ((1 << length) - 1)))
            if symbol is not None:
                return symbol, length
        raise CorruptImage("The WebP has an unknown prefix. Check that the file is complete.")


def read_prefix_code(bits: BitReader, alphabet: int) -> PrefixCode:
    """Read a code for the symbols below `alphabet`."""
    lengths = _read_simple_lengths(bits) if bits.read(1) else _read_lengths(bits, alphabet)
    return PrefixCode(lengths[:alphabet])


def _read_simple_lengths(bits: BitReader) -> list[int]:
    has_two, first_has_eight_bits = bits.read(1), bits.read(1)
    lengths = [0] * 256
    lengths[bits.read(8 if first_has_eight_bits else 1)] = 1
    if has_two:
        lengths[bits.read(8)] = 1
    return lengths


def _read_lengths(bits: BitReader, alphabet: int) -> list[int]:
    """Read code lengths that are themselves prefix-coded, with repetitions."""
    code_lengths = [0] * len(_CODE_LENGTH_ORDER)
    for symbol in _CODE_LENGTH_ORDER[: 4 + bits.read(4)]:
        code_lengths[symbol] = bits.read(3)
    code = PrefixCode(code_lengths)
    symbols = 2 + bits.read(2 + 2 * bits.read(3)) if bits.read(1) else alphabet
    lengths: list[int] = []
    previous = _FIRST_PREVIOUS
    while len(lengths) < alphabet and symbols:
        symbols -= 1
        symbol = code.read(bits)
        if symbol in _REPETITIONS:
            fewest, more_bits = _REPETITIONS[symbol]
            lengths += [previous if symbol == _REPEAT_PREVIOUS else 0] * (fewest + bits.read(more_bits))
        else:
            lengths.append(symbol)
            previous = symbol or previous
    return lengths
