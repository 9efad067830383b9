"""The supported JPEG frames: 8 bits per sample, one, three or four components, and a process that Pillow decodes."""

from __future__ import annotations

from model.errors import UnsupportedPixelFormat
from model.imaging.containers.jpeg import read_segments

# Start-of-frame markers (ITU-T T.81, table B.1; T.87 for JPEG-LS). True where Pillow has a decoder.
_FRAMES = {
    0xC0: ("baseline", True),
    0xC1: ("extended sequential", True),
    0xC2: ("progressive", True),
    0xC3: ("lossless", True),
    0xC5: ("hierarchical", False),
    0xC6: ("hierarchical", False),
    0xC7: ("hierarchical", False),
    0xC9: ("arithmetic", True),
    0xCA: ("arithmetic progressive", True),
    0xCB: ("arithmetic lossless", False),
    0xCD: ("hierarchical", False),
    0xCE: ("hierarchical", False),
    0xCF: ("hierarchical", False),
    0xF7: ("JPEG-LS", False),
}


def check_undecoded_jpeg(data: bytes) -> None:
    """Raise UnsupportedPixelFormat for a JPEG that cannot be decoded because of its kind, not because of damage."""
    for marker, segment in read_segments(data):
        if marker in _FRAMES and len(data) > segment.start + 9:
            process, is_supported = _FRAMES[marker]
            bits, components = data[segment.start + 4], data[segment.start + 9]
            if not is_supported or bits != 8 or components not in {1, 3, 4}:
                raise UnsupportedPixelFormat(
                    f"JPEGs of this kind are not supported: {components} "
                    f"{'component' if components == 1 else 'components'} of {bits} bits, {process}. Save the image as "
                    "a baseline JPEG with 8 bits per sample, or as PNG."
                )
            return
