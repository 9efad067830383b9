"""Builders of small valid images and of images with false headers, and how tests decode them."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model import errors
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.support.images import pngs

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def get_rejection(data: bytes) -> errors.ImageRejected | None:
    """Decode, and return the rejection or None. Other errors propagate and fail the test."""
    try:
        decode_image(data, DEFAULT_INPUT, max_pixels=1_000_000)
    except errors.ImageRejected as rejection:
        return rejection
    return None


def decode_as_in_training(data: bytes) -> NDArray[np.uint8]:
    """Decode an image at full scale and preprocess it, as the research script does."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.resize((256, 256)).convert("RGB"))


def make_small(name: str) -> bytes:
    """A valid image of 24x24 pixels in the format `name`; most of its bytes are compressed pixels."""
    image = Image.fromarray(np.random.default_rng(7).integers(0, 256, (24, 24, 3), np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, name, **({"compression": "tiff_lzw"} if name == "TIFF" else {}))
    return buffer.getvalue()


def make_jpeg_header(width: int, height: int) -> bytes:
    """A JPEG of 24x24 whose header declares another size."""
    data = make_small("JPEG")
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]


def make_webp_canvas(width: int, height: int) -> bytes:
    """An animated WebP of 100 bytes with a canvas of that size."""
    frame = make_small("WEBP")[12:]
    size = [struct.pack("<I", value - 1)[:3] for value in (width, height)]
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + size[0] + size[1]
    body = b"\0" * 6 + struct.pack("<I", 23)[:3] * 2 + b"\0" * 4 + frame
    chunks = canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + b"ANMF" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def make_big_tiff(data: bytes) -> bytes:
    """Rewrite a classic TIFF as BigTIFF, whose entries hold values of up to 8 bytes."""
    (count,) = struct.unpack_from("<H", data, 8)
    end = 16 + 8 + 20 * count + 8
    moved = end - (10 + 12 * count + 4)
    entries = b""
    for index in range(count):
        tag, kind, number, value = struct.unpack_from("<HHII", data, 10 + 12 * index)
        if kind == 17:
            (value,) = struct.unpack_from("<Q", data, value)
        entries += struct.pack("<HHQQ", tag, kind, number, value + moved if tag in {273, 324} else value)
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + entries + bytes(8) + data[10 + 12 * count + 4 :]


def make_png_with(before: bytes, *, after: bytes = b"", pixel_chunks: int = 1) -> bytes:
    """A PNG with additional chunks before and after its pixels, which are split into `pixel_chunks` chunks."""
    data = make_small("PNG")
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    pixels = pngs.make_chunk(b"IDAT", b"") * (pixel_chunks - 1) + data[start:end]
    return data[:start] + before + pixels + after + data[end:]
