"""TIFF files of every layout, and the pixels that a second reader, tifffile, decodes from them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

HEIGHT, WIDTH = 24, 40
_TILE = (16, 16)
_ROWS_PER_STRIP = 8

# Photometric interpretation, bands and extra samples, by the name of the kind.
KINDS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "grey": ("minisblack", 1, ()),
    "inverted grey": ("miniswhite", 1, ()),
    "grey+alpha": ("minisblack", 2, ("unassalpha",)),
    "grey+premultiplied": ("minisblack", 2, ("assocalpha",)),
    "grey+x": ("minisblack", 2, ("unspecified",)),
    "three greys": ("minisblack", 3, ("unspecified",) * 2),
    "four greys": ("minisblack", 4, ("unspecified",) * 3),
    "twelve greys": ("minisblack", 12, ("unspecified",) * 11),
    "rgb": ("rgb", 3, ()),
    "rgb+alpha": ("rgb", 4, ("unassalpha",)),
    "rgb+premultiplied": ("rgb", 4, ("assocalpha",)),
    "rgb+x": ("rgb", 4, ("unspecified",)),
    "rgb+alpha+x": ("rgb", 5, ("unassalpha", "unspecified")),
    "rgb+xx": ("rgb", 5, ("unspecified",) * 2),
    "rgb+xxxx": ("rgb", 7, ("unspecified",) * 4),
    "cmyk": ("separated", 4, ()),
    "cmyk+x": ("separated", 5, ("unspecified",)),
}


@dataclass(frozen=True)
class Layout:
    """One way to store an image in a TIFF. `compression` has tifffile's name, or is None."""

    kind: str
    dtype: str
    planar: bool
    compression: str | None
    byte_order: Literal["<", ">"]
    tiled: bool
    predictor: bool = False

    def __str__(self) -> str:
        arrangement = "planes" if self.planar else "interleaved"
        blocks = "tiles" if self.tiled else "strips"
        parts = [self.kind, self.dtype, arrangement, self.compression, self.byte_order, blocks]
        return " ".join(map(str, parts)) + (" predictor" if self.predictor else "")


def write_tiff(layout: Layout) -> bytes:
    """Encode a smooth picture, in which no two bands are equal."""
    photometric, bands, extras = KINDS[layout.kind]
    samples = _draw(bands, np.dtype(layout.dtype))
    if layout.kind.endswith("premultiplied"):
        samples = _premultiply(samples)
    options: dict[str, Any] = {"tile": _TILE} if layout.tiled else {"rowsperstrip": _ROWS_PER_STRIP}
    if bands == 1:
        samples = samples[..., 0]
        # tifffile omits the planar configuration.
        options["extratags"] = [(284, 3, 1, 2, True)] if layout.planar else []
    else:
        options["planarconfig"] = "separate" if layout.planar else "contig"
        samples = np.moveaxis(samples, 2, 0) if layout.planar else samples
    if extras:
        options["extrasamples"] = extras
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples,
        photometric=photometric,
        compression=layout.compression,
        byteorder=layout.byte_order,
        predictor=layout.predictor,
        metadata=None,
        **options,
    )
    return buffer.getvalue()


def read_samples(data: bytes) -> NDArray[Any]:
    """The samples of the first image as [height, width, bands], read by tifffile."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        samples: NDArray[Any] = page.asarray()
        if samples.ndim == 2:
            return samples[..., np.newaxis]
        return np.moveaxis(samples, 0, 2) if page.planarconfig == 2 else samples


def convert_to_rgb(kind: str, samples: NDArray[Any]) -> NDArray[np.float64]:
    """The RGB values of the samples: high bytes, alpha over white, naive CMYK, surplus bands ignored."""
    values: NDArray[np.float64] = (samples >> 8 if samples.dtype.itemsize == 2 else samples).astype(np.float64)
    if kind.startswith("cmyk"):
        return np.round((255 - values[..., :3]) * (255 - values[..., 3:4]) / 255)
    colours = 1 if kind in {"grey", "inverted grey", "grey+alpha", "grey+x"} else 3
    colour, alpha = values[..., :colours], values[..., colours : colours + 1]
    if kind == "inverted grey":
        colour = 255 - colour
    elif "+alpha" in kind:
        colour = np.round(colour * alpha / 255 + 255 - alpha)
    elif kind.endswith("premultiplied"):
        colour = np.minimum(colour + 255 - alpha, 255)
    return np.repeat(colour, 3, axis=2) if colours == 1 else colour


def _draw(bands: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    parts = np.stack([(np.sin(x / (5 + band)) + np.cos(y / (4 + band)) + 2) / 4 for band in range(bands)], axis=-1)
    if dtype.kind == "f":
        return parts.astype(dtype)
    limits = np.iinfo(dtype)
    return (limits.min + parts * (int(limits.max) - int(limits.min))).astype(dtype)


def _premultiply(samples: NDArray[Any]) -> NDArray[Any]:
    largest = np.iinfo(samples.dtype).max if samples.dtype.kind in "iu" else 1
    colours = samples[..., :-1].astype(float) * samples[..., -1:] / largest
    return np.concatenate([colours.astype(samples.dtype), samples[..., -1:]], axis=-1)
