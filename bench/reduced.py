"""What it changes that large JPEGs are decoded at a lower scale: real photographs, enlarged, both ways.

    python -m bench.reduced [--images FOLDER] [--each 2]

FOLDER holds images, or folders of them; the samples without it. An enlarged photograph has nothing fine in it: for each
size there is also a mosaic of photographs at their own scale, which is all detail.
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


Make = Callable[[list[Path], int, tuple[int, int], random.Random], Iterator[Image.Image]]


def enlarged(files: list[Path], count: int, size: tuple[int, int], chance: random.Random) -> Iterator[Image.Image]:
    """Photographs, each scaled with a filter that `chance` picks."""
    for file in chance.sample(files, count):
        yield _read(file).resize(size, chance.choice((Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)))


def mosaic(files: list[Path], count: int, size: tuple[int, int], chance: random.Random) -> Iterator[Image.Image]:
    """Tiles of photographs, none enlarged."""
    for _ in range(count):
        image = Image.new("RGB", size)
        tiles = [_read(file).resize((_TILE, _TILE)) for file in chance.sample(files, min(_TILES, len(files)))]
        for x in range(0, size[0], _TILE):
            for y in range(0, size[1], _TILE):
                image.paste(chance.choice(tiles), (x, y))
        yield image


def compare(backend: Backend, images: Iterator[Image.Image]) -> str:
    """One line: images, those with the same label, the differences, and milliseconds to decode both ways."""
    spec = backend.info.input_spec
    same, pixels, probabilities = 0, 0.0, 0.0
    seconds: list[tuple[float, float]] = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        began = time.perf_counter()
        reduced = decode_image(file.getvalue(), spec).pixels
        between = time.perf_counter()
        with Image.open(file) as opened:
            whole = np.asarray(opened.resize(spec.size).convert("RGB"))
        seconds.append((between - began, time.perf_counter() - between))
        ours, true = backend.predict(np.stack((reduced, whole)))
        same += bool(ours.argmax() == true.argmax())
        pixels = max(pixels, float(np.abs(reduced.astype(int) - whole).max()))
        probabilities = max(probabilities, float(np.abs(ours - true).max()))
    count = len(seconds)
    quick, slow = (1000 * sum(column) / count for column in zip(*seconds, strict=True))
    return f"{count:>7}{same:>12}{pixels:>10.0f} of 255{probabilities:>14.4f}{quick:>12.0f}{slow:>10.0f}"


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=SAMPLES)
    parser.add_argument("--each", type=int, default=2, help="so many images of each folder and size")
    options = parser.parse_args()
    folders = [options.images, *sorted(path for path in options.images.iterdir() if path.is_dir())]
    groups = [[file for file in sorted(folder.iterdir()) if file.suffix.lower() in _SUFFIXES] for folder in folders]
    chance, backend = random.Random(1), open_backend(MODEL_URL)  # noqa: S311  (the same images every time)
    columns = f"{'images':>7}{'same label':>12}{'pixels off':>17}{'probability':>14}{'ms reduced':>12}{'ms full':>10}"
    print(f"{'':20}{columns}")
    makes: tuple[tuple[str, Make], ...] = (("enlarged", enlarged), ("mosaic", mosaic))
    for size_name, size in SIZES.items():
        for name, make in makes:
            made = (make(files, min(options.each, len(files)), size, chance) for files in groups if files)
            print(f"{f'{size_name} {name}':20}{compare(backend, chain.from_iterable(made))}", flush=True)


if __name__ == "__main__":
    main()
