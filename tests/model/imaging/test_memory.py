"""The estimated memory of decoding, compared with the measured peak."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from model.imaging.decode import measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.support.images import pngs
from tests.support.requirements import missing

Encode = Callable[..., bytes]

# Decodes the named files, and prints the estimated and the measured peak memory for each, including the file.
_MEASURE = """
import json, sys
from pathlib import Path
from api.server.allocator import limit_memory_use, return_free_memory
from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import InputSpec
INPUT = InputSpec(dtype="uint8")
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
limit_memory_use()
decode_image(Path(sys.argv[1]).read_bytes(), INPUT)
for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    needs = measure_image(data, INPUT)
    return_free_memory()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    decode_image(data, INPUT)
    print(json.dumps([Path(name).name, needs.bytes, memory("VmHWM") - before + len(data)]))
"""
_KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "grey.jpg": ("L", {}),
    "baseline.jpg": ("RGB", {}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "progressive_444.jpg": ("RGB", {"progressive": True, "subsampling": 0}),
    "cmyk_progressive.jpg": ("CMYK", {"progressive": True}),
    "one_bit.png": ("1", {}),
    "grey.png": ("L", {}),
    "grey_alpha.png": ("LA", {}),
    "grey_keyed.png": ("L", {"transparency": 3}),
    "palette.png": ("P", {}),
    "palette_keyed.png": ("P", {"transparency": 3}),
    "sixteen.png": ("I;16", {}),
    "colour.png": ("RGB", {}),
    "colour_keyed.png": ("RGB", {"transparency": (1, 2, 3)}),
    "alpha.png": ("RGBA", {}),
    "colour.webp": ("RGB", {"method": 0}),
    "alpha.webp": ("RGBA", {"method": 0}),
    "lossless.webp": ("RGBA", {"method": 0, "lossless": True, "quality": 0}),
    "raw.tiff": ("RGB", {}),
    "strips.tiff": ("RGB", {"compression": "tiff_lzw"}),
    "one_strip.tiff": ("RGBA", {"compression": "tiff_deflate", "strip_size": 1 << 30}),
    "one_strip_jpeg.tiff": ("RGB", {"compression": "jpeg", "strip_size": 1 << 30}),
    "turned.tiff": ("RGB", {"compression": "tiff_lzw", "tiffinfo": {274: 6}}),
}


def _write_rare_kinds(folder: Path, samples: NDArray[np.uint8]) -> None:
    """Write 16-bit images with a transparent colour and in planes, and grey bands that are read as RGB."""
    deep = samples.astype(np.uint16) * 257
    for name, pixels, key in (("sixteen_keyed.png", deep[..., 0], 1), ("colour_sixteen_keyed.png", deep, 3)):
        data = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
        start = data.index(b"IDAT") - 4
        (folder / name).write_bytes(data[:start] + pngs.make_chunk(b"tRNS", b"\1\2" * key) + data[start:])
    planes = np.moveaxis(deep, 2, 0)
    tifffile.imwrite(folder / "planes.tiff", planes, photometric="rgb", planarconfig="separate", rowsperstrip=64)
    tifffile.imwrite(
        folder / "packed_planes.tiff", planes, photometric="rgb", planarconfig="separate", compression="adobe_deflate"
    )
    _write_sensor_kinds(folder, samples)
    tifffile.imwrite(folder / "greys.tiff", samples, photometric="minisblack", planarconfig="contig", tile=(256, 256))


def _write_sensor_kinds(folder: Path, samples: NDArray[np.uint8]) -> None:
    """Write images that use 11 of 16 bits, which are decoded twice or plane by plane."""
    alpha = np.full((*samples.shape[:2], 1), 255, np.uint8)
    sensor = np.round(np.concatenate([samples, alpha], axis=2) * (2047 / 255)).astype(np.uint16)
    for name, chosen in (("grey", [0]), ("grey_alpha", [2, 3]), ("colour", [0, 1, 2]), ("alpha", [0, 1, 2, 3])):
        pixels = np.squeeze(sensor[..., chosen])
        (folder / f"sensor_{name}.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    data = (folder / "sensor_colour.png").read_bytes()
    start = data.index(b"IDAT") - 4
    key = pngs.make_chunk(b"tRNS", b"\1\2" * 3)
    (folder / "sensor_keyed.png").write_bytes(data[:start] + key + data[start:])
    turned = [(274, 3, 1, 6, True)]
    for planes, compression in (("contig", None), ("contig", "lzw"), ("separate", None), ("separate", "lzw")):
        for bands in (3, 4):
            pixels = np.moveaxis(sensor[..., :bands], 2, 0) if planes == "separate" else sensor[..., :bands]
            tifffile.imwrite(
                folder / f"sensor_{planes}_{compression}_{bands}.tiff",
                pixels,
                photometric="rgb",
                planarconfig=planes,
                compression=compression,
                rowsperstrip=64,
                extrasamples=["unassalpha"][: bands - 3],
                extratags=turned,
                metadata=None,
            )


def test_no_image_takes_more_memory_than_estimated(tmp_path: Path, samples: list[Path], encode: Encode) -> None:
    """In every format and mode the peak is not above the estimate, and for all formats but TIFF it is close to it."""
    if sys.platform != "linux":
        missing("reads /proc")
    with Image.open(samples[0]) as sample:
        # Small enough for JPEGs to be decoded at full scale.
        large = sample.convert("RGB").resize((1200, 900))
    for name, (mode, options) in _KINDS.items():
        image = large.convert("L").convert("I").convert("I;16") if mode == "I;16" else large.convert(mode)
        kind = {"jpg": "JPEG"}.get(name.rpartition(".")[2], name.rpartition(".")[2].upper())
        (tmp_path / name).write_bytes(encode(image, kind, **options))
    _write_rare_kinds(tmp_path, np.asarray(large))
    files = sorted(map(str, tmp_path.iterdir()))
    measured = subprocess.run([sys.executable, "-c", _MEASURE, *files], capture_output=True, text=True, check=True)
    peaks = {name: (estimate, peak) for name, estimate, peak in map(json.loads, measured.stdout.splitlines())}
    assert {name: results for name, results in peaks.items() if results[1] > results[0]} == {}
    wasteful = {name for name, (estimate, peak) in peaks.items() if estimate > 1.6 * peak + 4_000_000}
    assert not {name for name in wasteful if not name.endswith("tiff")}


def test_non_interleaved_jpegs_are_buffered(encode: Encode) -> None:
    """The estimate includes all coefficients of a baseline JPEG whose first scan has one of three components."""
    image = Image.effect_noise((1600, 1600), 60).convert("RGB")
    data = encode(image, "JPEG")
    scan = data.index(b"\xff\xda") + 2
    apart = data[:scan] + b"\x00\x08\x01\x01\x00\x00\x3f\x00" + data[scan + int.from_bytes(data[scan : scan + 2]) :]
    assert measure_image(apart, DEFAULT_INPUT).bytes - measure_image(data, DEFAULT_INPUT).bytes > 2 * 1600 * 1600
