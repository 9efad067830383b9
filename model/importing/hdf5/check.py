"""Traverse the groups and data sets of an HDF5 file, and check each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from model.importing.hdf5.dense_links import read_dense_links
from model.importing.hdf5.headers import (
    ATTRIBUTE,
    ATTRIBUTE_INFO,
    DATASPACE,
    DATATYPE,
    LAYOUT,
    LINK,
    LINK_INFO,
    SYMBOL_TABLE,
    Message,
    read_messages,
)
from model.importing.hdf5.links import parse_link, read_symbol_table
from model.importing.hdf5.reader import UNDEFINED, Cursor, Data, Reader, reject
from model.importing.hdf5.types import check_dataset, parse_attribute

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_OBJECTS = 100_000


def check_hdf5(data: Data) -> Mapping[str, bytes]:
    """Check all objects reachable from the root. Returns the root's text attributes. Raises UnsafeModelFile."""
    reader = Reader(data)
    address, cached_table = _find_root(reader)
    root = read_messages(reader, address)
    if cached_table and [body[:16] for body in _select(root, SYMBOL_TABLE)] != [cached_table]:
        reject("its root group has two different indexes")
    seen: set[int] = set()
    pending = _check_object(reader, root)
    while pending:
        address = pending.pop()
        if address in seen:
            reject("two links lead to the same object")
        seen.add(address)
        if len(seen) > _MAX_OBJECTS:
            reject("it has too many objects")
        pending += _check_object(reader, read_messages(reader, address))
    attributes = (parse_attribute(reader, body) for body in _select(root, ATTRIBUTE))
    return {attribute.name: attribute.text for attribute in attributes if attribute.text is not None}


def _find_root(reader: Reader) -> tuple[int, bytes]:
    """Check the superblock. Returns the address of the root's header, and its cached symbol table message."""
    reader.expect(0, SIGNATURE, "the file")
    cached_table = b""
    version = reader.read(8, 1)[0]
    if version == 0:
        sizes = reader.unpack(13, "BB")
        base, _, end, driver = reader.unpack(24, "QQQQ")
        root, cache = reader.unpack(64, "QI")
        cached_table = reader.read(80, 16) if cache else b""
    elif version in (2, 3):
        sizes = reader.unpack(9, "BB")
        base, driver, end, root = reader.unpack(12, "QQQQ")  # the second is an extension, which may name a driver
    else:
        reject(f"its superblock has the version {version}")
    if sizes != (8, 8) or base != 0 or driver != UNDEFINED:
        reject("it is part of a larger file or of several files")
    if end > len(reader):
        reject(f"it is truncated: {end} bytes are expected, but it has {len(reader)}")
    return root, cached_table


def _check_object(reader: Reader, messages: Sequence[Message]) -> list[int]:
    """Check a group or a data set, and return the addresses of a group's members."""
    for body in _select(messages, ATTRIBUTE):
        parse_attribute(reader, body)
    for body in _select(messages, ATTRIBUTE_INFO):
        _check_attributes_are_inline(body)
    layouts = list(_select(messages, LAYOUT))
    if layouts:
        dataspaces, datatypes = list(_select(messages, DATASPACE)), list(_select(messages, DATATYPE))
        if not len(layouts) == len(dataspaces) == len(datatypes) == 1:
            reject("a data set has no type or no shape, or two of them")
        check_dataset(reader, dataspaces[0], datatypes[0], layouts[0])
    members = [parse_link(body) for body in _select(messages, LINK)]
    for body in _select(messages, SYMBOL_TABLE):
        members += read_symbol_table(reader, body)
    for body in _select(messages, LINK_INFO):
        members += read_dense_links(reader, body)
    return members


def _check_attributes_are_inline(body: bytes) -> None:
    cursor = Cursor(body)
    cursor.take(1)
    cursor.take(2 if cursor.integer(1) & 1 else 0)
    if cursor.integer(8) != UNDEFINED:
        reject("an object has more attributes than Keras writes")


def _select(messages: Sequence[Message], kind: int) -> Iterator[bytes]:
    return (message.body for message in messages if message.kind == kind)
