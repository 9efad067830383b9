"""The bit depth of an image's samples, and their scaling to 8 bits."""

from __future__ import annotations

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from model.imaging.containers.tiff_metadata import Metadata, MetadataTag
from model.imaging.sample_range import MAX_SAMPLE, RangeHints

_INDEXED = {"P", "PA"}
# IHDR is the first chunk of a PNG: signature, length and name precede width and height.
_PNG_DEPTH_OFFSET = 24


def get_bit_depth(image: Image.Image, data: bytes) -> int:
    """Return the bits of a sample, or of an index into a palette, in the file `data` of the opened `image`."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2.get(BITSPERSAMPLE, (1,))[0])
    return data[_PNG_DEPTH_OFFSET] if image.format == "PNG" else 8


def name_scaling(image: Image.Image, bit_depth: int) -> str:
    """Return the name of the scaling of samples that use their full range. The colours of a palette have 8 bits."""
    return "none" if bit_depth == 8 or image.mode in _INDEXED else f"{bit_depth}_to_8"


def get_raw_mode(image: Image.Image) -> str:
    """Return Pillow's name for the arrangement of the samples in the file of an opened image that is not loaded."""
    args = image.tile[0].args if isinstance(image, ImageFile) and image.tile else ()
    return str(args if isinstance(args, str) else args[0] if args else "")


def read_hints(metadata: Metadata) -> RangeHints:
    """Return what a TIFF declares about its 16-bit samples. Values that do not fit into 16 bits are ignored."""
    largest = [
        max(metadata[tag])
        for tag in (MetadataTag.S_MAX_SAMPLE_VALUE, MetadataTag.MAX_SAMPLE_VALUE)
        if tag in metadata and 0 < max(metadata[tag]) <= MAX_SAMPLE
    ]
    nodata = metadata.get(MetadataTag.NODATA, (-1.0,))[0]
    return RangeHints(
        maximum=int(largest[0]) if largest else None,
        nodata=int(nodata) if 0 <= nodata <= MAX_SAMPLE else None,
    )
