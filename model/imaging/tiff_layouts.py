"""The supported TIFF layouts: those that Pillow decodes correctly, as a test checks against a second reader.

Pillow misreads some other layouts and reports the rest as damaged files. The tag values are defined in TIFF 6.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    EXTRASAMPLES,
    FILLORDER,
    II,
    IMAGELENGTH,
    IMAGEWIDTH,
    MM,
    OPEN_INFO,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    PREDICTOR,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    STRIPOFFSETS,
    TILEOFFSETS,
    TiffImageFile,
)

from model.errors import CorruptImage, UnsupportedPixelFormat
from model.imaging.containers.tiff_directory import read_directory

_INK_SET = 332
_ORDERS = {II: "L", MM: "B"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_UNCOMPRESSED, _JPEG = 1, 7
_FAX = {2, 3, 4}
_COMPRESSIONS = {
    1: "no compression",
    2: "CCITT compression",
    3: "CCITT Group 3 compression",
    4: "CCITT Group 4 compression",
    5: "LZW compression",
    7: "JPEG compression",
    8: "Deflate compression",
    32773: "PackBits compression",
    32946: "Deflate compression",
    34925: "LZMA compression",
    50000: "Zstandard compression",
}
_UNSUPPORTED_COMPRESSIONS = {
    6: "old-style JPEG compression",
    33003: "JPEG 2000 compression",
    33004: "JPEG 2000 compression",
    33005: "JPEG 2000 compression",
    34712: "JPEG 2000 compression",
    34887: "LERC compression",
    34927: "WebP compression",
    50001: "WebP compression",
    50002: "JPEG XL compression",
    52546: "JPEG XL compression",
}
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex integer", 6: "complex floating-point"}
_PHOTOMETRICS = {
    _WHITE_IS_ZERO: "WhiteIsZero",
    _BLACK_IS_ZERO: "BlackIsZero",
    _RGB: "RGB",
    _PALETTE: "palette",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    8: "CIE L*a*b*",
}

# The extra samples that may follow the colours, by photometric interpretation and bits per sample: 0 is an unspecified
# band, which is ignored, 1 is premultiplied alpha, 2 is alpha. Grey with two unspecified bands is read as RGB.
_Extras = set[tuple[int, ...]]
_COREL_ALPHA = 999
_INTERLEAVED: dict[tuple[int, int], _Extras] = {
    **{(photometric, bits): {()} for photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE) for bits in (1, 2, 4)},
    (_WHITE_IS_ZERO, 8): {()},
    (_BLACK_IS_ZERO, 8): {(), (0,), (2,), (0, 0)},
    (_BLACK_IS_ZERO, 16): {(), (0, 0)},
    (_RGB, 8): {(), (0, 0), (0, 0, 0), (_COREL_ALPHA,)} | {(kind, *(0,) * n) for kind in (0, 1, 2) for n in range(3)},
    (_RGB, 16): {(), (0,), (1,), (2,)},
    (_PALETTE, 8): {(), (0,), (2,)},
    (_CMYK, 8): {(), (0,), (0, 0)},
    (_CMYK, 16): {()},
    (_YCBCR, 8): {()},
}
_PLANES: dict[tuple[int, int], _Extras] = {(_RGB, 8): {(), (2,)}, (_RGB, 16): {(), (2,)}, (_CMYK, 8): {()}}
# Any number of unspecified extra planes is allowed as well.
_COMPRESSED_PLANES: dict[tuple[int, int], _Extras] = {
    (_RGB, 8): {(), (1,), (2,)},
    (_RGB, 16): {(), (1,), (2,)},
    (_CMYK, 8): {()},
    (_CMYK, 16): {()},
}


# Bits per sample of the one-band layouts that are also supported with the bits of each byte reversed.
_REVERSIBLE_BITS = {_WHITE_IS_ZERO: (1, 2, 4), _BLACK_IS_ZERO: (1, 2, 4, 8), _PALETTE: (8,)}


def _read_three_grey_bands_as_rgb() -> None:
    """Add layouts to Pillow's, because GIS tools write three bands as BlackIsZero with two extra samples."""
    for prefix, order in _ORDERS.items():
        for bits, raw_mode in ((8, "RGB"), (16, f"RGB;16{order}")):
            for extras in ((), (0, 0)):
                OPEN_INFO[prefix, _BLACK_IS_ZERO, (1,), 1, (bits,) * 3, extras] = "RGB", raw_mode


_read_three_grey_bands_as_rgb()


class TiffLayout(Struct, frozen=True):
    """The tags that determine how the bytes of a TIFF become pixels. `bits` is 0 if the bands differ in depth."""

    photometric: int
    bands: int
    bits: int
    sample_format: int
    extras: tuple[int, ...]
    planar: bool
    compression: int
    predictor: int
    fill_order: int
    ink_set: int
    sparse: bool

    @classmethod
    def from_tags(cls, tags: Mapping[int, Any]) -> TiffLayout:
        photometric, bands = _number(tags, PHOTOMETRIC_INTERPRETATION, 0), _number(tags, SAMPLESPERPIXEL, 1)
        extras = _numbers(tags, EXTRASAMPLES, ())
        if not extras:
            # What Pillow assumes if the tag is missing.
            extras = {(_RGB, 4): (2,), (_BLACK_IS_ZERO, 3): (0, 0)}.get((photometric, bands), ())
        return cls(
            photometric=photometric,
            bands=bands,
            bits=_common(_numbers(tags, BITSPERSAMPLE, (1,))[:bands]),
            sample_format=_common(_numbers(tags, SAMPLEFORMAT, (1,))[:bands]),
            extras=extras,
            planar=_number(tags, PLANAR_CONFIGURATION, 1) != 1,
            compression=_number(tags, COMPRESSION, _UNCOMPRESSED),
            predictor=_number(tags, PREDICTOR, 1),
            fill_order=_number(tags, FILLORDER, 1),
            ink_set=_number(tags, _INK_SET, 1),
            sparse=0 in _numbers(tags, STRIPOFFSETS, ()) or 0 in _numbers(tags, TILEOFFSETS, ()),
        )

    @property
    def has_compressed_planes(self) -> bool:
        return self.planar and self.bands > 1 and self.compression != _UNCOMPRESSED

    def check(self) -> None:
        """Raise UnsupportedPixelFormat, with a command to convert the file, for an unsupported layout."""
        if not self._is_supported():
            raise UnsupportedPixelFormat(
                f"TIFFs with this layout are not supported: {self._describe()}. Convert the image to grey or RGB, "
                f"for example with: {self._suggest()}"
            )

    def get_raw_mode(self, prefix: bytes, plane: str) -> str:
        """Return Pillow's raw mode for the samples of an uncompressed plane. `plane` is "R", "G" and so on."""
        if self.bands == 1:
            return OPEN_INFO[prefix, self.photometric, (1,), self.fill_order, (self.bits,), ()][1]
        return f"{plane};16{_ORDERS[prefix]}" if self.bits == 16 else plane

    def _is_supported(self) -> bool:
        return (
            self.bands == _COLOURS.get(self.photometric, 0) + len(self.extras)
            and self._has_supported_bands()
            and self._has_supported_compression()
            and self.sample_format == 1
            and self.ink_set == 1
            and not self.sparse
            and (self.predictor == 1 or (self.predictor == 2 and self.bits in {8, 16}))
            and (self.fill_order == 1 or self._has_supported_bit_order())
        )

    def _has_supported_bands(self) -> bool:
        key, extras = (self.photometric, self.bits), self.extras
        if not self.planar or self.bands == 1:
            return extras in _INTERLEAVED.get(key, set())
        if self.compression == _UNCOMPRESSED:
            return extras in _PLANES.get(key, set())
        return key in _COMPRESSED_PLANES and (set(extras) == {0} or extras in _COMPRESSED_PLANES[key])

    def _has_supported_bit_order(self) -> bool:
        """Whether Pillow reads this layout with the bits of each byte reversed."""
        if self.fill_order != 2 or self.extras:
            return False
        if self.photometric == _RGB:
            return self.bits == 8 and not self.planar
        return self.bits in _REVERSIBLE_BITS.get(self.photometric, ())

    def _has_supported_compression(self) -> bool:
        if self.compression == _JPEG:
            # libtiff rejects JPEG data of three grey bands: other tools write its samples as YCbCr.
            three_greys = self.photometric == _BLACK_IS_ZERO and self.bands == 3
            return self.bits == 8 and self.photometric != _PALETTE and not three_greys
        if self.compression in _FAX:
            return self.bits == 1 and self.photometric != _PALETTE
        return self.compression in _COMPRESSIONS and self.photometric != _YCBCR

    def _describe(self) -> str:
        """Describe bands, bits, sample format, photometric interpretation, arrangement and compression."""
        names = _COMPRESSIONS | _UNSUPPORTED_COMPRESSIONS
        compression = names.get(self.compression, f"compression {self.compression}")
        photometric = _PHOTOMETRICS.get(self.photometric, f"photometric interpretation {self.photometric}")
        bits = f"{self.bits} bits" if self.bits else "bands of different depths"
        sample_format = _SAMPLE_FORMATS.get(self.sample_format, "undefined")
        parts = [
            f"{self.bands} {'band' if self.bands == 1 else 'bands'} of {bits} ({sample_format})",
            photometric,
            *(["alpha premultiplied"] if 1 in self.extras else []),
            *(["separate planes"] if self.planar and self.bands > 1 else []),
            *(["reversed bits"] if self.fill_order != 1 else []),
            *(["missing strips or tiles"] if self.sparse else []),
            compression,
        ]
        return ", ".join(parts)

    def _suggest(self) -> str:
        """Suggest a command to convert the file: GDAL keeps bands separate, ImageMagick converts colour spaces."""
        if self.photometric not in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB}:
            return "magick INPUT.tif -colorspace sRGB -depth 8 OUTPUT.png"
        # Keep 16-bit samples: the decoder finds the range of the converted file.
        kept = {8: "-ot Byte ", 16: ""} if self.sample_format == 1 else {}
        depth = kept.get(self.bits, "-ot Byte -scale ")
        bands = "-b 1 -b 2 -b 3 -co PHOTOMETRIC=RGB" if self.bands >= 3 else "-b 1"
        return f"gdal_translate {depth}{bands} -co INTERLEAVE=PIXEL INPUT.tif OUTPUT.tif"


def prepare_layout(image: TiffImageFile) -> None:
    """Check the layout of an opened image before loading it. Raises CorruptImage, UnsupportedPixelFormat.

    Also corrects the raw modes of uncompressed planes: Pillow uses only the first letter, which is wrong for all but
    8-bit samples. Rejects images with missing strips, whose pixels Pillow would leave black.
    """
    layout = TiffLayout.from_tags(image.tag_v2)
    layout.check()
    if layout.compression != _UNCOMPRESSED:
        return
    areas = (
        (right - left) * (bottom - top)
        for left, top, right, bottom in (tile.extents or (0,) * 4 for tile in image.tile)
    )
    if sum(areas) < image.width * image.height * (layout.bands if layout.planar else 1):
        raise CorruptImage("The TIFF has fewer strips or tiles than its size needs. Check that the file is complete.")
    if layout.planar:
        tiles = [(tile, *(tile.args or ())) for tile in image.tile]
        image.tile = [
            tile._replace(args=(layout.get_raw_mode(image.tag_v2.prefix, plane), *rest)) for tile, plane, *rest in tiles
        ]


def check_unopened_tiff(data: bytes) -> None:
    """Check the layout of a file that Pillow cannot open. Raises CorruptImage, UnsupportedPixelFormat.

    Does nothing if the layout is supported or tags are missing: then the file is damaged.
    """
    tags = {tag: values[0] if len(values) == 1 else tuple(values) for tag, values in read_directory(data).items()}
    if {IMAGEWIDTH, IMAGELENGTH, PHOTOMETRIC_INTERPRETATION} <= set(tags):
        TiffLayout.from_tags(tags).check()


def _number(tags: Mapping[int, Any], tag: int, default: int) -> int:
    """Return the tag's number, or -1 for a value that is not a single number."""
    value = tags.get(tag, default)
    return value if isinstance(value, int) else -1


def _numbers(tags: Mapping[int, Any], tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    values = tags.get(tag, default)
    values = values if isinstance(values, tuple) else (values,)
    return tuple(value if isinstance(value, int) else -1 for value in values)


def _common(numbers: tuple[int, ...]) -> int:
    """Return the number that all bands share, or 0."""
    return numbers[0] if len(set(numbers)) == 1 else 0
