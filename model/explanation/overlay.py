"""Draw an explanation over its image."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Seventeen colours of matplotlib's perceptually uniform map "inferno", from dark to bright (Smith and van der Walt,
# 2015, CC0). Between them, linear interpolation differs from the map by at most 7 of 255.
_COLOURS = bytes.fromhex("""
    000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754
    d04545 e35933 f1711f f98c0a fcaa0f f9c932 f2e865 fcffa4
""")
_OPACITY = 0.55
# Higher levels barely shrink a photograph, but take up to five times as long.
_COMPRESS_LEVEL = 1
# The image, the colours and the blend, each in Pillow (four bytes per pixel) and as an array, and the encoded file.
_BYTES_PER_PIXEL = 24


def estimate_overlay_bytes(width: int, height: int) -> int:
    """Estimate the peak memory in bytes of `draw_overlay` for an image of this size."""
    return _BYTES_PER_PIXEL * width * height


def draw_overlay(pixels: NDArray[np.uint8], heat: NDArray[np.float32], offset: tuple[float, float]) -> bytes:
    """Return a PNG of the size of `pixels`, uint8 [height, width, 3], in which bright areas have a high `heat`.

    `heat` is float32 [rows, columns] in 0..1. It is enlarged bilinearly to cover the whole image, and moved by
    `offset`, in rows and columns of `heat`.
    """
    height, width, _ = pixels.shape
    levels = _enlarge((heat * 255).round().astype(np.uint8), (width, height), offset)
    colours = Image.fromarray(_make_palette()[np.asarray(levels)])
    buffer = io.BytesIO()
    Image.blend(Image.fromarray(pixels), colours, _OPACITY).save(buffer, "PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


def _enlarge(levels: NDArray[np.uint8], size: tuple[int, int], offset: tuple[float, float]) -> Image.Image:
    """Scale uint8 [rows, columns] to `size` (width, height), moved by `offset`, whose values are at most 1."""
    rows, columns = levels.shape
    top, left = 1 - offset[0], 1 - offset[1]
    box = (left, top, left + columns, top + rows)
    return Image.fromarray(np.pad(levels, 1, mode="edge")).resize(size, Image.Resampling.BILINEAR, box)


def _make_palette() -> NDArray[np.uint8]:
    """Return the colours of the levels 0 to 255, uint8 [256, 3]."""
    known = np.frombuffer(_COLOURS, np.uint8).reshape(-1, 3)
    positions = np.linspace(0, 255, len(known))
    channels = [np.interp(np.arange(256), positions, known[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)
