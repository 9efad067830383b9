"""Threats T31, T32 and T33: small images that take much time, memory or metadata to decode."""

from __future__ import annotations

import httpx
import pytest

from tests.support.gateway import Gateway
from tests.support.images import pngs, webps
from tests.support.paths import ROOT

FIXTURES = ROOT / "tests" / "model" / "imaging" / "fixtures"
PACKED = b"k\0\0" + pngs.compress_bomb(1 << 20)


def send(caller: httpx.Client, data: bytes) -> tuple[int, str]:
    """Return the status, and the code of the error if there is one."""
    response = caller.post("/v1/predictions", content=data, headers={"Content-Type": "application/octet-stream"})
    return response.status_code, response.json().get("code", "")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    "name",
    [
        "512_strips_share_the_same_bytes.tif",
        "arithmetic_progressive_50_scans.jpg",
        "jpeg_strip_taller_than_the_image.tif",
    ],
)
def test_costly_images_are_rejected_without_being_decoded(caller: httpx.Client, gateway: Gateway, name: str) -> None:
    """T31, T32: TIFFs that share strips or hold a taller JPEG, and JPEGs with many arithmetic scans, get a 415."""
    before = gateway.resident_bytes()
    assert send(caller, (FIXTURES / name).read_bytes()) == (415, "unsupported_image")
    assert gateway.resident_bytes() - before < 20_000_000


@pytest.mark.usefixtures("bounded")
def test_prefix_codes_of_a_lossless_webp_are_reserved(caller: httpx.Client) -> None:
    """T32: a WebP of 20 KB that takes 30 MB to decode is served; one that would take 400 MB gets a 415."""
    small, large = (
        webps.make_webp(webps.make_chunk(b"VP8L", webps.make_grouped_pixels(side, side, groups)))
        for side, groups in ((256, 4_000), (1_020, 65_000))
    )
    assert send(caller, small) == (200, "")
    assert send(caller, large) == (415, "unsupported_image")


@pytest.mark.usefixtures("bounded")
def test_compressed_metadata_is_never_decompressed(caller: httpx.Client) -> None:
    """T33: a PNG with megabytes of compressed profiles and texts is served like one without them."""
    profile, text = pngs.make_chunk(b"iCCP", PACKED), pngs.make_chunk(b"zTXt", PACKED)
    pixels = pngs.make_chunk(b"IDAT", pngs.compress_bomb(33 * 32))
    data = pngs.make_png(pngs.make_header(32, 32, 8, 0), (profile + text) * 1_000, pixels)
    assert send(caller, data) == (200, "")
