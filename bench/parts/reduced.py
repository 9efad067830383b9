"""Compare decoding large JPEGs at a reduced scale, as the gateway does, with decoding them in full.

    python -m bench.parts.reduced [--images FOLDER] [--each 2]

FOLDER contains images, or folders of images; the default is the samples. The large images are enlarged photographs,
which have no fine detail, and mosaics of photographs at their own scale, which have fine detail everywhere.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from model.backends.base import Backend
from model.backends.open import open_backend
from model.imaging.decode import decode_image
from tests.support.paths import MODEL_URL, SAMPLES

SIZES = {"12 MP": (4000, 3000), "24 MP": (6000, 4000), "48 MP": (8000, 6000)}
_TILE, _TILES = 256, 8
_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}

MakeImages = Callable[[list[Path], int, tuple[int, int], random.Random], Iterator[Image.Image]]


def make_enlarged(files: list[Path], count: int, size: tuple[int, int], rng: random.Random) -> Iterator[Image.Image]:
    """Yield photographs, each enlarged with a randomly chosen filter."""
    for file in rng.sample(files, count):
        yield _read(file).resize(size, rng.choice((Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)))


def make_mosaics(files: list[Path], count: int, size: tuple[int, int], rng: random.Random) -> Iterator[Image.Image]:
    """Yield images of randomly placed photographs at their own scale."""
    for _ in range(count):
        image = Image.new("RGB", size)
        tiles = [_read(file).resize((_TILE, _TILE)) for file in rng.sample(files, min(_TILES, len(files)))]
        for x in range(0, size[0], _TILE):
            for y in range(0, size[1], _TILE):
                image.paste(rng.choice(tiles), (x, y))
        yield image


def compare(backend: Backend, images: Iterator[Image.Image]) -> str:
    """Return one line of the table.

    It has the number of images and of equal labels, the largest differences of a pixel and of a probability, and the
    mean milliseconds to decode an image both ways.
    """
    spec = backend.info.input_spec
    equal_labels, pixel_difference, probability_difference = 0, 0.0, 0.0
    seconds: list[tuple[float, float]] = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        data = file.getvalue()
        started = time.perf_counter()
        # A detailed mosaic of 48 megapixels can exceed the limit on uploads.
        reduced = decode_image(data, spec, max_bytes=len(data)).pixels
        middle = time.perf_counter()
        with Image.open(file) as opened:
            full = np.asarray(opened.resize(spec.size, spec.resampling).convert("RGB"))
        seconds.append((middle - started, time.perf_counter() - middle))
        actual, expected = backend.predict(np.stack((reduced, full)))
        equal_labels += bool(actual.argmax() == expected.argmax())
        pixel_difference = max(pixel_difference, float(np.abs(reduced.astype(int) - full).max()))
        probability_difference = max(probability_difference, float(np.abs(actual - expected).max()))
    count = len(seconds)
    reduced_ms, full_ms = (1000 * sum(column) / count for column in zip(*seconds, strict=True))
    differences = f"{pixel_difference:>10.0f} of 255{probability_difference:>14.4f}"
    return f"{count:>7}{equal_labels:>12}{differences}{reduced_ms:>12.0f}{full_ms:>10.0f}"


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=SAMPLES)
    parser.add_argument("--each", type=int, default=2, help="images per folder and size")
    options = parser.parse_args()
    folders = [options.images, *sorted(path for path in options.images.iterdir() if path.is_dir())]
    groups = [[file for file in sorted(folder.iterdir()) if file.suffix.lower() in _SUFFIXES] for folder in folders]
    rng, backend = random.Random(1), open_backend(MODEL_URL)  # noqa: S311  (the same images every time)
    columns = f"{'images':>7}{'same label':>12}{'pixels off':>17}{'probability':>14}{'ms reduced':>12}{'ms full':>10}"
    print(f"{'':20}{columns}")
    kinds: tuple[tuple[str, MakeImages], ...] = (("enlarged", make_enlarged), ("mosaic", make_mosaics))
    for size_name, size in SIZES.items():
        for name, make in kinds:
            images = (make(files, min(options.each, len(files)), size, rng) for files in groups if files)
            print(f"{f'{size_name} {name}':20}{compare(backend, chain.from_iterable(images))}", flush=True)


if __name__ == "__main__":
    main()
