"""Reading the tags of a TIFF that describe its samples and its georeference."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from model.imaging.containers.tiff_metadata import MetadataTag, read_metadata
from model.imaging.sample_range import RangeHints
from model.imaging.samples import read_hints
from tests.support.images import tiffs

TAG = int(MetadataTag.S_MAX_SAMPLE_VALUE)
TEXT, NODATA = 2, int(MetadataTag.NODATA)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_numbers_and_text_are_read(order: str, big: bool) -> None:
    """Values in the entry and outside it are read in both byte orders, in TIFF and BigTIFF."""
    tags: tiffs.Tags = {TAG: (tiffs.LONG, [1, 2, 3, 70_000]), NODATA: (TEXT, b"65535\0")}
    assert read_metadata(tiffs.make_tiff(tags, order=order, big=big)) == {TAG: (1, 2, 3, 70_000), NODATA: (65_535,)}


@pytest.mark.parametrize("count", [1_000, 2**32 - 1])
def test_counts_are_not_trusted(count: int) -> None:
    """Whatever count a tag declares, at most 16 values are read, and none if they end outside the file."""
    data = tiffs.make_tiff({TAG: (tiffs.SHORT, [7] * 20)})
    entry = struct.pack("<HHI", TAG, tiffs.SHORT, 20)
    assert read_metadata(data.replace(entry, struct.pack("<HHI", TAG, tiffs.SHORT, count))) == {TAG: (7,) * 16}
    assert read_metadata(data[:-10].replace(entry, struct.pack("<HHI", TAG, tiffs.SHORT, count))) == {}


@pytest.mark.parametrize(
    ("kind", "values"),
    [(TEXT, b"\0"), (TEXT, b"nan\0"), (TEXT, b"-inf\0"), (TEXT, b"none"), (TEXT, b"\xff\xfe\0"), (77, b"12")],
)
def test_other_values_than_finite_numbers_are_left_out(kind: int, values: Sequence[int]) -> None:
    """Text that is not a finite number and values of unknown types are ignored."""
    data = tiffs.make_tiff({NODATA: (TEXT, values)})
    data = data.replace(struct.pack("<HHI", NODATA, TEXT, len(values)), struct.pack("<HHI", NODATA, kind, len(values)))
    assert read_metadata(data) == {}


@pytest.mark.parametrize("data", [b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_a_damaged_directory_has_no_metadata(data: bytes) -> None:
    """A directory that is missing, truncated or outside the file has no metadata, and is not an error here."""
    assert read_metadata(data) == {}


@pytest.mark.parametrize(
    ("tags", "hints"),
    [
        ({}, RangeHints()),
        ({281: (tiffs.SHORT, [1_023])}, RangeHints(maximum=1_023)),
        ({341: (tiffs.SHORT, [2_000, 2_047, 9])}, RangeHints(maximum=2_047)),
        ({281: (tiffs.SHORT, [1_023]), 341: (tiffs.SHORT, [2_047])}, RangeHints(maximum=2_047)),
        ({341: (tiffs.SHORT, [0])}, RangeHints()),
        ({341: (tiffs.LONG, [65_536])}, RangeHints()),
        ({42113: (TEXT, b"0\0")}, RangeHints(nodata=0)),
        ({42113: (TEXT, b"-9999\0")}, RangeHints()),
        ({42113: (TEXT, b"65535\0")}, RangeHints(nodata=65_535)),
        ({42113: (TEXT, b"1e300\0")}, RangeHints()),
    ],
)
def test_the_declared_range_of_samples(tags: tiffs.Tags, hints: RangeHints) -> None:
    """The declared largest sample and value for missing data are used if 16 bits can hold them."""
    assert read_hints(read_metadata(tiffs.make_tiff(tags))) == hints
