"""The depth of an image's samples, and how they become 8-bit ones."""

from __future__ import annotations

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

_INDEXED = {"P", "PA"}
# IHDR is the first chunk of a PNG: signature, length and name precede width and height.
_PNG_DEPTH_OFFSET = 24


def get_bit_depth(image: Image.Image, data: bytes) -> int:
    """Return the bits of a sample, or of an index into a palette, in the file `data` of the opened `image`."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2.get(BITSPERSAMPLE, (1,))[0])
    return data[_PNG_DEPTH_OFFSET] if image.format == "PNG" else 8


def name_scaling(image: Image.Image, bit_depth: int) -> str:
    """Name the scaling of samples that use their whole range. The colours of a palette have 8 bits."""
    return "none" if bit_depth == 8 or image.mode in _INDEXED else f"{bit_depth}_to_8"


def get_raw_mode(image: Image.Image) -> str:
    """Return Pillow's name for the arrangement of the samples in the file of an opened image that is not loaded."""
    args = image.tile[0].args if isinstance(image, ImageFile) and image.tile else ()
    return str(args if isinstance(args, str) else args[0] if args else "")
