"""Object headers: the messages that describe a group or a data set."""

from __future__ import annotations

from msgspec import Struct

from model.importing.hdf5.reader import Cursor, Reader, reject

_SHARED = 0x02
_CONTINUATION = 0x10
_MAX_MESSAGES = 10_000

DATASPACE, LINK_INFO, DATATYPE, LINK, LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x08
ATTRIBUTE, SYMBOL_TABLE, ATTRIBUTE_INFO = 0x0C, 0x11, 0x15
_KNOWN = {
    0x00: "padding",
    DATASPACE: "dataspace",
    LINK_INFO: "link info",
    DATATYPE: "datatype",
    0x04: "old fill value",
    0x05: "fill value",
    LINK: "link",
    LAYOUT: "layout",
    0x0A: "group info",
    ATTRIBUTE: "attribute",
    0x0E: "old modification time",
    _CONTINUATION: "continuation",
    SYMBOL_TABLE: "symbol table",
    0x12: "modification time",
    ATTRIBUTE_INFO: "attribute info",
    0x16: "references",
}
_REJECTED = {0x07: "keeps data in other files", 0x0B: "has compressed data", 0x0F: "shares messages"}


class Message(Struct, frozen=True):
    """A header message: its type and its contents."""

    kind: int
    body: bytes


def read_messages(reader: Reader, address: int) -> list[Message]:
    """Return the messages of the object header at `address`. Raises UnsafeModelFile for unknown kinds."""
    if reader.read(address, 4) == b"OHDR":
        return _read_version_2(reader, address)
    version, _, count, _, size = reader.unpack(address, "BBHII")
    if version != 1:
        reject(f"an object has a header of version {version}")
    messages: list[Message] = []
    blocks = [(address + 16, size)]
    while blocks:
        position, length = blocks.pop(0)
        block = Cursor(reader.read(position, length))
        while block.remaining >= 8 and len(messages) < count:
            kind, body_size, flags = block.integer(2), block.integer(2), block.integer(1)
            block.take(3)
            _add(messages, blocks, kind, flags, block.take(body_size))
    return messages


def _read_version_2(reader: Reader, address: int) -> list[Message]:
    version, flags = reader.unpack(address + 4, "BB")
    if version != 2:
        reject(f"an object has a header of version {version}")
    position = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(reader.read(position, width), "little")
    messages: list[Message] = []
    blocks = [(position + width, size)]
    is_first = True
    while blocks:
        position, length = blocks.pop(0)
        if not is_first:
            reader.expect(position, b"OCHK", "the continuation of a header")
            position, length = position + 4, length - 8  # a checksum follows
        is_first = False
        block = Cursor(reader.read(position, length))
        while block.remaining >= (6 if flags & 0x04 else 4):
            kind, body_size, message_flags = block.integer(1), block.integer(2), block.integer(1)
            block.take(2 if flags & 0x04 else 0)
            _add(messages, blocks, kind, message_flags, block.take(body_size))
    return messages


def _add(messages: list[Message], blocks: list[tuple[int, int]], kind: int, flags: int, body: bytes) -> None:
    if kind in _REJECTED:
        reject(f"an object {_REJECTED[kind]}")
    if kind not in _KNOWN:
        reject(f"an object has a message of the unknown type {kind}")
    if flags & _SHARED:
        reject(f"the {_KNOWN[kind]} of an object is stored elsewhere")
    messages.append(Message(kind, body))
    if len(messages) > _MAX_MESSAGES:
        reject("an object has too many messages")
    if kind == _CONTINUATION:
        cursor = Cursor(body)
        blocks.append((cursor.integer(8), cursor.integer(8)))
