"""The members of a group: link messages, and the older symbol tables. Only hard links are allowed."""

from __future__ import annotations

from model.importing.hdf5.reader import UNDEFINED, Cursor, Reader, reject

_NO_CACHE, _GROUP_CACHE = 0, 1
_HARD_LINK = 0


def parse_link(body: bytes) -> int:
    """Return the address that a link message points to. Raises UnsafeModelFile for soft and external links."""
    cursor = Cursor(body)
    version, flags = cursor.integer(1), cursor.integer(1)
    if version != 1:
        reject(f"a link has the version {version}")
    if flags & 0x08 and cursor.integer(1) != _HARD_LINK:
        reject("it has a link to another place or another file")
    cursor.take(8 if flags & 0x04 else 0)
    cursor.take(1 if flags & 0x10 else 0)
    cursor.take(cursor.integer(1 << (flags & 3)))
    return cursor.integer(8)


def read_symbol_table(reader: Reader, body: bytes) -> list[int]:
    """Return the addresses of a group's members from its B-tree of symbol table nodes."""
    tree = Cursor(body).integer(8)
    members: list[int] = []
    pending, seen = [tree], set[int]()
    while pending:
        node = pending.pop()
        if node in seen:
            reject("the index of a group leads back to itself")
        seen.add(node)
        reader.expect(node, b"TREE", "the index of a group")
        kind, level, used = reader.unpack(node + 4, "BBH")
        if kind != 0:
            reject("the index of a group is of another kind")
        keys_and_children = reader.unpack(node + 24, "QQ" * used)
        children = keys_and_children[1::2]
        if level:
            pending += children
        else:
            for child in children:
                members += _read_symbols(reader, child)
    return members


def _read_symbols(reader: Reader, node: int) -> list[int]:
    reader.expect(node, b"SNOD", "the list of a group's members")
    count = reader.unpack(node + 6, "H")[0]
    members = []
    for index in range(count):
        entry = node + 8 + index * 40
        _, header, cache, _ = reader.unpack(entry, "QQII")
        if cache not in (_NO_CACHE, _GROUP_CACHE) or header == UNDEFINED:
            reject("it has a link to another place or another file")
        members.append(header)
    return members
