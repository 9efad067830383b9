"""The description of a model's input, which the artefact's manifest declares and the decoder follows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from PIL.Image import Resampling

# Pillow's filters, and how many source pixels each reaches to either side, in units of the scale.
_FILTERS = {
    "nearest": (Resampling.NEAREST, 0),
    "box": (Resampling.BOX, 1),
    "bilinear": (Resampling.BILINEAR, 1),
    "hamming": (Resampling.HAMMING, 1),
    "bicubic": (Resampling.BICUBIC, 2),
    "lanczos": (Resampling.LANCZOS, 3),
}
# The bytes of a pixel by the type of the graph's input: its RGB values and, for float32, their copy.
_BYTES_PER_PIXEL = {"uint8": 3, "float32": 15}
# Increase this whenever the same file may decode to different pixels. The ledger records it with each prediction.
_DECODER_VERSION = "4"
# A JPEG is decoded at a lower scale only as long as both of its sides keep this multiple of the input.
_REDUCED_FACTOR = 4


@dataclass(frozen=True, slots=True)
class InputSpec:
    """RGB in 0..255, `width` by `height` pixels, scaled with `resize_filter`. Raises ValueError.

    `ground_resolution_m` is the side of a pixel on the ground in metres in the images that the model was trained with,
    None if unknown. `dtype` is the type of the graph's input, "uint8" or, in graphs of earlier releases, "float32".
    Neither affects the pixels. The other defaults are the input of the shipped model.
    """

    width: int = 256
    height: int = 256
    resize_filter: str = "bicubic"
    ground_resolution_m: float | None = field(default=None, compare=False)
    dtype: str = field(default="float32", compare=False)

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if type(side) is not int or side < 1:
                raise ValueError(f"{side!r} is not a number of pixels")
        if self.resize_filter not in _FILTERS:
            raise ValueError(f"{self.resize_filter!r} is not a resize filter. Use one of {', '.join(_FILTERS)}")
        resolution = self.ground_resolution_m
        if resolution is not None and (type(resolution) not in (int, float) or not 0 < resolution < math.inf):
            raise ValueError(f"{resolution!r} is not a ground resolution in metres")
        if self.dtype not in _BYTES_PER_PIXEL:
            raise ValueError(f"{self.dtype!r} is not a type of pixels. Use one of {', '.join(_BYTES_PER_PIXEL)}")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in Pillow's order."""
        return self.width, self.height

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels, in the order of arrays and graphs."""
        return self.height, self.width, 3

    @property
    def tensor_bytes(self) -> int:
        """The memory of the pixels and, if the graph takes float32, of their copy."""
        return _BYTES_PER_PIXEL[self.dtype] * self.width * self.height

    @property
    def resampling(self) -> Resampling:
        return _FILTERS[self.resize_filter][0]

    @property
    def filter_radius(self) -> int:
        """Source pixels that the filter reads on either side of a target pixel, in units of the scale."""
        return _FILTERS[self.resize_filter][1]

    @property
    def reduced_side(self) -> int:
        """The smallest side to which a JPEG may be reduced while it is decoded, in pixels."""
        return _REDUCED_FACTOR * max(self.size)

    @property
    def preprocessing(self) -> str:
        """Identifies the preprocessing in the ledger: equal values decode the same file to the same pixels."""
        if self == DEFAULT_INPUT:
            return _DECODER_VERSION
        return f"{_DECODER_VERSION}:{self.width}x{self.height}:{self.resize_filter}"


DEFAULT_INPUT = InputSpec()
