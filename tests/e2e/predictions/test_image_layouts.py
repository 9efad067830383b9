"""Images as GIS tools, cameras and scanners write them, on a gateway with the shipped model."""

from __future__ import annotations

import io
from typing import Any

import httpx
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.support.gateway import Gateway
from tests.support.paths import FOREST


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """An aerial photograph as [height, width, 3]."""
    with Image.open(FOREST) as image:
        return np.asarray(image.convert("RGB"))


def send(gateway: Gateway, data: bytes) -> httpx.Response:
    with gateway.client() as client:
        return client.post("/v1/predictions", files={"file": ("image", data)})


def write_tiff(samples: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, **options)
    return buffer.getvalue()


def write_image(pixels: NDArray[np.uint8], name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name, **options)
    return buffer.getvalue()


def test_all_ways_to_store_a_picture_get_the_same_prediction(gateway: Gateway, pixels: NDArray[np.uint8]) -> None:
    """An image with 16 bits, with planes, stored as grey bands or rotated gets the probabilities of a plain PNG."""
    deep = pixels.astype(np.uint16) * 257
    turned = Image.Exif()
    turned[0x0112] = 6
    stored = [
        write_image(pixels, "PNG"),
        write_tiff(np.moveaxis(deep, 2, 0), photometric="rgb", planarconfig="separate"),
        write_tiff(
            np.moveaxis(deep, 2, 0), photometric="rgb", planarconfig="separate", compression="lzw", byteorder=">"
        ),
        write_tiff(pixels, photometric="minisblack", planarconfig="contig"),
        write_image(np.rot90(pixels), "PNG", exif=turned),
        write_image(np.rot90(pixels), "TIFF", tiffinfo={274: 6}),
    ]
    predictions = [send(gateway, data).json()["predictions"] for data in stored]
    assert predictions == [predictions[0]] * len(stored)


@pytest.mark.parametrize(
    ("kind", "detail"),
    [
        ("floats", "3 bands of 32 bits (floating-point), RGB, no compression"),
        ("grey and alpha planes", "2 bands of 8 bits (unsigned), BlackIsZero, separate planes, LZW compression"),
        ("12-bit JPEG", "1 component of 12 bits"),
    ],
)
def test_a_whole_image_of_another_layout_is_described(
    gateway: Gateway, pixels: NDArray[np.uint8], kind: str, detail: str
) -> None:
    """An image with an unsupported layout gets a 422 `unsupported_pixel_format` that describes the layout."""
    grey = pixels[..., 0].astype(np.uint16)
    planes: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "separate", "extrasamples": ["unassalpha"]}
    files = {
        "floats": write_tiff(pixels.astype(np.float32), photometric="rgb"),
        "grey and alpha planes": write_tiff(np.moveaxis(pixels[..., :2], 2, 0), compression="lzw", **planes),
        "12-bit JPEG": bytes(imagecodecs.jpeg_encode(grey * 16, bitspersample=12)),
    }
    response = send(gateway, files[kind])
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "unsupported_pixel_format")
    assert detail in problem["detail"]
    assert ("gdal_translate -ot Byte" in problem["detail"]) == (kind != "12-bit JPEG")
