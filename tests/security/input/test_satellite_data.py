"""Threat T50: false georeferences, and 16-bit images that use a small range."""

from __future__ import annotations

import math
import struct

import httpx
import pytest

from tests.support.gateway import Gateway
from tests.support.images import tiffs

SIDE = 2_000
GREY = tiffs.describe_strips((8, 8), 1, [8], [64], 8)


def send(caller: httpx.Client, data: bytes) -> httpx.Response:
    return caller.post("/v1/predictions", content=data, headers={"Content-Type": "image/tiff"})


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 0.0, 1e300, 5e-324])
def test_impossible_georeferences_are_ignored(caller: httpx.Client, number: float) -> None:
    """T50: an image with an infinite or implausible georeference gets a prediction without a ground resolution."""
    numbers: tiffs.Tags = {
        33550: (tiffs.DOUBLE, [number] * 3),
        33922: (tiffs.DOUBLE, [number] * 6),
        34735: (tiffs.SHORT, [1, 1, 0, 1, 1024, 0, 1, 1]),
        42113: (tiffs.TEXT, str(number).encode()),
    }
    response = send(caller, tiffs.make_tiff({**GREY, **numbers}, bytes(64)))
    assert (response.status_code, response.json()["image"]["ground_resolution_m"]) == (200, None)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(("count", "offset"), [(2**32 - 1, 8), (3, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0, 0)])
def test_counts_and_offsets_of_georeferences_are_not_trusted(caller: httpx.Client, count: int, offset: int) -> None:
    """T50: tags that declare four billion values or point outside the file have no effect."""
    data = tiffs.make_tiff({**GREY, 33550: (tiffs.DOUBLE, [1.0] * 3), 34735: (tiffs.SHORT, [1] * 8)}, bytes(64))
    for entry in (struct.pack("<HHI", 33550, tiffs.DOUBLE, 3), struct.pack("<HHI", 34735, tiffs.SHORT, 8)):
        at = data.index(entry)
        data = data[: at + 4] + struct.pack("<II", count, offset) + data[at + 12 :]
    response = send(caller, data)
    assert (response.status_code, response.json()["image"]["ground_resolution_m"]) == (200, None)


@pytest.mark.usefixtures("bounded")
def test_a_small_range_takes_no_more_memory_than_reserved(caller: httpx.Client, gateway: Gateway) -> None:
    """T50: a colour image of 10 bits, which is decoded twice, is served, and its memory is released."""
    before = gateway.resident_bytes()
    length = SIDE * 400 * 6
    colours: tiffs.Tags = {258: (tiffs.SHORT, [16] * 3), 262: (tiffs.SHORT, [2]), 277: (tiffs.SHORT, [3])}
    tags: tiffs.Tags = {**tiffs.describe_strips((SIDE, 400), 1, [8], [length], 400), **colours}
    response = send(caller, tiffs.make_tiff(tags, b"\3\1" * (length // 2)))
    assert (response.status_code, response.json()["image"]["scaling"]) == (200, "10_to_8")
    assert gateway.resident_bytes() - before < 20_000_000
