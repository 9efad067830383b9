"""Write small HDF5 files, benign and hostile ones, so that the tests need no HDF5 library.

Groups have link messages in an object header of version 1, which every release of HDF5 since 1.8 reads.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

UNDEFINED = 0xFFFFFFFFFFFFFFFF
_FLOAT32 = bytes.fromhex("11201f00 04000000 0000 2000 17 08 00 17 7f000000")
_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _EXTERNAL_FILES, _LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
_GROUP_INFO, _FILTERS, _ATTRIBUTE = 0x0A, 0x0B, 0x0C


@dataclass(frozen=True)
class Dataset:
    """A data set of float32. `declared` elements may differ from the `stored` ones; `external` names a file.

    A data set that is not `allocated` has the declared size, but no storage in the file: reading it gives zeros.
    """

    declared: int = 4
    stored: int = 4
    external: str | None = None
    allocated: bool = True
    compressed: bool = False
    datatype: bytes = _FLOAT32


@dataclass(frozen=True)
class Link:
    """A soft link to a path, or an external link to a file and a path in it."""

    path: str
    file: str | None = None


@dataclass(frozen=True)
class Group:
    """A group, its members and its text attributes."""

    members: Mapping[str, Group | Dataset | Link] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


def write_hdf5(root: Group) -> bytes:
    """The bytes of an HDF5 file with a superblock of version 0."""
    image = bytearray(96)
    address = _write(image, root)
    head = b"\x89HDF\r\n\x1a\n" + struct.pack("<8B2HI", 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0)
    head += struct.pack("<4Q", 0, UNDEFINED, len(image), UNDEFINED)
    image[:96] = head + struct.pack("<2Q2I16x", 0, address, 0, 0)
    return bytes(image)


def _write(image: bytearray, item: Group | Dataset) -> int:
    return _write_group(image, item) if isinstance(item, Group) else _write_dataset(image, item)


def _write_group(image: bytearray, group: Group) -> int:
    messages = [(_LINK_INFO, struct.pack("<BB2Q", 0, 0, UNDEFINED, UNDEFINED)), (_GROUP_INFO, b"\0\0")]
    for name, member in group.members.items():
        encoded = name.encode()
        if isinstance(member, Link):
            kind = 1 if member.file is None else 64
            messages.append((_LINK, struct.pack("<4B", 1, 8, kind, len(encoded)) + encoded + _describe_target(member)))
        else:
            address = struct.pack("<Q", _write(image, member))
            messages.append((_LINK, struct.pack("<3B", 1, 0, len(encoded)) + encoded + address))
    messages += [(_ATTRIBUTE, _describe_attribute(name, text)) for name, text in group.attributes.items()]
    return _write_header(image, messages)


def _describe_target(link: Link) -> bytes:
    path = link.path.encode()
    target = path if link.file is None else b"\0" + link.file.encode() + b"\0" + path + b"\0"
    return struct.pack("<H", len(target)) + target


def _describe_attribute(name: str, text: str) -> bytes:
    encoded, value = _pad(name.encode() + b"\0"), text.encode() + b"\0"
    datatype, dataspace = struct.pack("<4BI", 0x13, 0, 0, 0, len(value)), struct.pack("<8B", 1, 0, 0, 0, 0, 0, 0, 0)
    sizes = struct.pack("<BBHHH", 1, 0, len(name) + 1, len(datatype), len(dataspace))
    return sizes + encoded + datatype + dataspace + value


def _write_dataset(image: bytearray, dataset: Dataset) -> int:
    dataspace = struct.pack("<8BQ", 1, 1, 0, 0, 0, 0, 0, 0, dataset.declared)
    messages = [(_DATASPACE, dataspace), (_DATATYPE, dataset.datatype)]
    if dataset.external is not None:
        heap = _write_names(image, dataset.external)
        slot = struct.pack("<3Q", 8, 0, dataset.declared * 4)
        messages.append((_EXTERNAL_FILES, struct.pack("<B3x2HQ", 1, 1, 1, heap) + slot))
    if dataset.external is not None or not dataset.allocated:
        address, size = UNDEFINED, dataset.declared * 4
    else:
        size = dataset.stored * 4
        address = _append(image, struct.pack(f"<{dataset.stored}f", *range(dataset.stored)))
    if dataset.compressed:
        messages.append((_FILTERS, struct.pack("<BB6x4H2I", 1, 1, 1, 0, 1, 1, 6, 0)))
    messages.append((_LAYOUT, struct.pack("<BB2Q", 3, 1, address, size)))
    return _write_header(image, messages)


def _write_names(image: bytearray, name: str) -> int:
    """Write a local heap with an empty name and, at the offset 8, `name`."""
    names = _pad(b"\0" * 8 + name.encode() + b"\0")
    data = _append(image, names)
    return _append(image, b"HEAP" + struct.pack("<B3x3Q", 0, len(names), 1, data))


def _write_header(image: bytearray, messages: Sequence[tuple[int, bytes]]) -> int:
    body = b"".join(struct.pack("<HHB3x", kind, len(_pad(data)), 0) + _pad(data) for kind, data in messages)
    return _append(image, struct.pack("<BBHII4x", 1, 0, len(messages), 1, len(body)) + body)


def _append(image: bytearray, data: bytes) -> int:
    address = len(image)
    image += _pad(data)
    return address


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 8)
