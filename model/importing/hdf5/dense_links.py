"""Groups with many members in the format of HDF5 1.8: a B-tree of names, and a fractal heap with the link messages."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from model.importing.hdf5.links import parse_link
from model.importing.hdf5.reader import UNDEFINED, Cursor, Reader, reject

_BY_NAME = 5
_RECORD = 11  # a hash of 4 bytes, and a heap id of 7
_NODE_OVERHEAD = 10
_MAX_DEPTH = 8


def read_dense_links(reader: Reader, link_info: bytes) -> list[int]:
    """Return the addresses of the members that a link info message refers to; none if there is no heap of links."""
    cursor = Cursor(link_info)
    cursor.take(1)
    cursor.take(8 if cursor.integer(1) & 1 else 0)
    heap, tree = cursor.integer(8), cursor.integer(8)
    if heap == UNDEFINED:
        return []
    links = _Heap.open(reader, heap)
    return [parse_link(links.read(record[4:])) for record in _iterate_records(reader, tree)]


def _iterate_records(reader: Reader, tree: int) -> Iterator[bytes]:
    reader.expect(tree, b"BTHD", "the index of a group")
    kind, node_size, record_size, depth = reader.unpack(tree + 5, "BIHH")
    root, count = reader.unpack(tree + 16, "QH")
    if kind != _BY_NAME or record_size != _RECORD or depth > _MAX_DEPTH:
        reject("the index of a group is of another kind")
    if root == UNDEFINED:
        return
    widths = _measure_pointers(node_size, depth)
    pending, seen = [(root, count, depth)], set[int]()
    while pending:
        node, records, level = pending.pop()
        if node in seen:
            reject("the index of a group leads back to itself")
        seen.add(node)
        reader.expect(node, b"BTIN" if level else b"BTLF", "a node of the index of a group")
        cursor = Cursor(reader.read(node + 6, node_size - 6))
        for _ in range(records):
            yield cursor.take(_RECORD)
        for _ in range(records + 1 if level else 0):
            child, child_records = cursor.integer(8), cursor.integer(widths[0])
            cursor.take(widths[level])
            pending.append((child, child_records, level - 1))


def _measure_pointers(node_size: int, depth: int) -> list[int]:
    """Return the width in bytes of a node's record count, then of the total counts below pointers at levels 1, 2, …"""
    per_leaf = (node_size - _NODE_OVERHEAD) // _RECORD
    if per_leaf < 1:
        reject("the nodes of the index of a group are too small")
    count_width, total, total_width = _width(per_leaf), per_leaf, 0
    widths = [count_width]
    for _ in range(depth):
        widths.append(total_width)
        pointer = 8 + count_width + total_width
        per_node = (node_size - _NODE_OVERHEAD - pointer) // (_RECORD + pointer)
        total = (per_node + 1) * total + per_node
        total_width = _width(total)
    return widths


def _width(number: int) -> int:
    return (number.bit_length() + 7) // 8


class _Heap(Struct, frozen=True):
    """A fractal heap, whose objects are in direct blocks. `blocks` are (start in the heap, size, address)."""

    reader: Reader
    offset_width: int
    length_width: int
    blocks: tuple[tuple[int, int, int], ...]

    @classmethod
    def open(cls, reader: Reader, address: int) -> _Heap:
        reader.expect(address, b"FRHP", "the heap of a group")
        filters, _, max_object = reader.unpack(address + 7, "HBI")
        width, start, max_direct, bits, _, root, rows = reader.unpack(address + 110, "HQQHHQH")
        if filters:
            reject("the heap of a group is compressed")
        offset_width = -(-bits // 8)
        length_width = _width(min(max_direct, max_object))
        if rows == 0:
            blocks = [(0, start, root)]
        else:
            blocks = _list_blocks(reader, root + 13 + offset_width, width, start, max_direct, rows)
        return cls(reader, offset_width, length_width, tuple(blocks))

    def read(self, heap_id: bytes) -> bytes:
        """Return the object with this id."""
        cursor = Cursor(heap_id)
        if cursor.integer(1) & 0xF0:
            reject("a link is stored in an unusual way")
        offset, length = cursor.integer(self.offset_width), cursor.integer(self.length_width)
        for start, size, address in self.blocks:
            if start <= offset < start + size:
                return self.reader.read(address + offset - start, length)
        return reject("a link is missing from the heap of its group")


def _list_blocks(
    reader: Reader, position: int, width: int, start: int, max_direct: int, rows: int
) -> list[tuple[int, int, int]]:
    blocks = []
    offset, size = 0, start
    for row in range(rows):
        if size > max_direct or size == 0:
            reject("a group has too many members")
        for address in reader.unpack(position + row * width * 8, "Q" * width):
            if address != UNDEFINED:
                blocks.append((offset, size, address))
            offset += size
        size *= 2 if row else 1
    return blocks
