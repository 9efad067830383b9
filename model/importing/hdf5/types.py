"""Dataspaces, datatypes, storage layouts and attributes."""

from __future__ import annotations

import math

from msgspec import Struct

from model.importing.hdf5.reader import UNDEFINED, Cursor, Reader, reject

_INTEGER, _FLOAT, _TEXT, _OPAQUE, _ENUM, _VARIABLE_LENGTH = 0, 1, 3, 5, 8, 9
_IN_DATA = {_INTEGER, _FLOAT, _TEXT, _OPAQUE, _ENUM}
_IN_ATTRIBUTES = {_INTEGER, _FLOAT, _TEXT, _ENUM, _VARIABLE_LENGTH}
_COMPACT, _CONTIGUOUS = 0, 1
_IS_TEXT = 0x01  # of a datatype of variable length
_REFERENCE_BYTES = 16  # a length, the address of a global heap, and an index
_MAX_TEXT = 16 << 20


class Attribute(Struct, frozen=True):
    """An attribute. `text` is its value if it is a single text, otherwise None."""

    name: str
    text: bytes | None


def count_elements(body: bytes) -> int:
    """Return the number of elements of a dataspace message."""
    cursor = Cursor(body)
    version, rank, _ = cursor.integer(1), cursor.integer(1), cursor.integer(1)
    if version == 1:
        cursor.take(5)
        is_null = False
    elif version == 2:
        is_null = cursor.integer(1) == 2
    else:
        reject(f"a dataspace has the version {version}")
    if rank > 32:
        reject(f"a data set has {rank} dimensions")
    return 0 if is_null else math.prod(cursor.integer(8) for _ in range(rank))


def check_dataset(reader: Reader, dataspace: bytes, datatype: bytes, layout: bytes) -> None:
    """Check that exactly the declared data is in this file. Raises UnsafeModelFile for any other kind of storage."""
    kind, size, _ = _parse_type(datatype)
    if kind not in _IN_DATA:
        reject(f"a data set has elements of the type {kind}, which is neither a number nor text")
    expected = count_elements(dataspace) * size
    cursor = Cursor(layout)
    version, storage = cursor.integer(1), cursor.integer(1)
    if version not in (3, 4) or storage not in (_COMPACT, _CONTIGUOUS):
        reject("a data set is neither contiguous nor compact")
    if storage == _COMPACT:
        stored = cursor.integer(2)
        cursor.take(stored)
    else:
        address, stored = cursor.integer(8), cursor.integer(8)
        stored = 0 if address == UNDEFINED else stored
        if stored and address + stored > len(reader):
            reject("the data of a data set is outside of the file; it is damaged or truncated")
    if stored != expected:
        reject(f"a data set declares {expected} bytes, but the file holds {stored} of them")


def parse_attribute(reader: Reader, body: bytes) -> Attribute:
    """Parse an attribute message. Raises UnsafeModelFile."""
    cursor = Cursor(body)
    version, flags = cursor.integer(1), cursor.integer(1)
    if version not in (1, 2, 3) or (version > 1 and flags):
        reject(f"an attribute has the version {version} or a type that is stored elsewhere")
    sizes = cursor.integer(2), cursor.integer(2), cursor.integer(2)
    cursor.take(1 if version == 3 else 0)
    name, datatype, dataspace = (cursor.take(-(-size // 8) * 8 if version == 1 else size) for size in sizes)
    kind, size, details = _parse_type(datatype)
    is_text = (details & 0x0F, size) == (_IS_TEXT, _REFERENCE_BYTES)
    if kind not in _IN_ATTRIBUTES or (kind == _VARIABLE_LENGTH and not is_text):
        reject(f"an attribute has the type {kind}, which is neither a number nor text")
    count = count_elements(dataspace)
    values = cursor.take(count * size)
    text = None
    if kind == _VARIABLE_LENGTH:
        texts = [_read_heap_text(reader, values[start : start + size]) for start in range(0, len(values), size)]
        text = texts[0] if count == 1 else None
    elif kind == _TEXT and count == 1:
        text = values.rstrip(b"\0")
    return Attribute(name.split(b"\0")[0].decode("utf-8", "replace"), text)


def _parse_type(datatype: bytes) -> tuple[int, int, int]:
    """Return the class of a datatype message, the size of an element, and the bits specific to the class."""
    cursor = Cursor(datatype)
    kind, details = cursor.integer(1) & 0x0F, cursor.integer(3)
    return kind, cursor.integer(4), details


def _read_heap_text(reader: Reader, reference: bytes) -> bytes:
    """Read a variable-length text from a global heap."""
    cursor = Cursor(reference)
    length, address, wanted = cursor.integer(4), cursor.integer(8), cursor.integer(4)
    if length == 0:
        return b""
    if length > _MAX_TEXT:
        reject(f"an attribute has {length} bytes of text")
    reader.expect(address, b"GCOL", "a global heap")
    end = address + reader.unpack(address + 8, "Q")[0]
    position = address + 16
    while position + 16 <= end:
        index, _, _, size = reader.unpack(position, "HHIQ")
        if index == wanted and index:
            if length > size:
                reject("a text of an attribute is longer than its storage")
            return reader.read(position + 16, length)
        if index == 0:
            break
        position += 16 + -(-size // 8) * 8
    return reject("the text of an attribute is missing")
