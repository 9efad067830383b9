"""Keep the chunks of a PNG (W3C PNG, section 11) that its first frame's pixels need."""

from __future__ import annotations

from model.errors import CorruptImage, UnsupportedImage
from model.imaging.bounds import check_size
from model.imaging.containers.reduced import ReducedFile

MAX_CHUNKS = 20_000
_SIGNATURE_LENGTH = 8
_HEADER_LENGTH = 25  # the chunk IHDR
_CHUNK_OVERHEAD = 12
_PIXELS = b"IDAT"
_COLOURS = (b"PLTE", b"tRNS")
_MAX_COLOUR_BYTES = 768
_END = b"\0\0\0\0IEND\xaeB`\x82"


def reduce_png(data: bytes, max_pixels: int) -> ReducedFile:
    """Keep the header, the palette, the transparency and the pixels; drop text, profiles, EXIF data and further frames.

    Raises CorruptImage, UnsupportedImage, ImageTooManyPixels.
    """
    header = data[: _SIGNATURE_LENGTH + _HEADER_LENGTH]
    if len(header) < _SIGNATURE_LENGTH + _HEADER_LENGTH or header[8:16] != b"\0\0\0\x0dIHDR":
        raise CorruptImage("The PNG does not begin with a header. Check that the file is complete.")
    check_size(int.from_bytes(header[16:20]), int.from_bytes(header[20:24]), max_pixels)
    colours, pixels = _find_chunks(data)
    view = memoryview(data)
    kept = [view[part] for part in colours.values()]
    if len(header) + sum(map(len, kept)) + (pixels.stop - pixels.start) + len(_END) == len(data):
        return ReducedFile(data)
    # If the last chunk is truncated, append nothing: the decoder would read it as pixels.
    end = _END if pixels.stop <= len(data) else b""
    return ReducedFile(b"".join([header, *kept, view[pixels], end]))


def _find_chunks(data: bytes) -> tuple[dict[bytes, slice], slice]:
    """Return the first palette and transparency chunks before the pixels, and the range of all pixel chunks."""
    position, first_pixels = _SIGNATURE_LENGTH + _HEADER_LENGTH, 0
    colours: dict[bytes, slice] = {}
    for _ in range(MAX_CHUNKS):
        kind = data[position + 4 : position + 8]
        end = position + _CHUNK_OVERHEAD + int.from_bytes(data[position : position + 4])
        if kind == _PIXELS:
            first_pixels = first_pixels or position
        elif first_pixels:
            return colours, slice(first_pixels, position)
        elif len(kind) < 4:
            raise CorruptImage("The PNG has no pixels. Check that the file is complete.")
        elif kind in _COLOURS and kind not in colours:
            if end - position > _CHUNK_OVERHEAD + _MAX_COLOUR_BYTES:
                raise CorruptImage("The PNG's palette is too large. Save the image again.")
            colours[kind] = slice(position, end)
        position = end
    raise UnsupportedImage(f"The PNG has more than {MAX_CHUNKS} chunks. Save it with larger ones.")
