"""The drift observations of real images. `features.csv`, which this module writes, has only numbers, no images.

    python -m tests.model.drift.features ../shared/data

computes them with the shipped model, for the test images of UC Merced, darkened copies of these, scenes of another
sensor (NEON), everyday photographs (Caltech-101) and the samples of this repository.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from model.backends.onnx import OnnxBackend
from model.drift.metrics import MEASURES, Observations
from model.offline.fitting.drift_reference import observe_predictions
from model.serving.prediction import Prediction, predict_image
from tests.support.paths import ARTEFACT, SAMPLES

FILE = Path(__file__).with_name("features.csv")
_PHOTOGRAPHS = 3  # every third


def read_features() -> dict[str, Observations]:
    """The observations of each group of images."""
    groups: dict[str, list[list[str]]] = {}
    with FILE.open(newline="") as file:
        for group, *row in csv.reader(file):
            groups.setdefault(group, []).append(row)
    return {group: _parse(rows) for group, rows in groups.items()}


def _parse(rows: Sequence[Sequence[str]]) -> Observations:
    values = np.array(rows, float)
    return Observations(values[:, 0].astype(np.int64), values[:, 1:], np.arange(len(rows), dtype=float))


def predict_groups(data: Path) -> Iterator[tuple[str, list[Prediction]]]:
    """Predict the images of each group."""
    backend = OnnxBackend(ARTEFACT)
    test = sorted((data / "ucmerced" / "test").rglob("*.jpg"))
    groups = {
        "test": [path.read_bytes() for path in test],
        "test, brightness x0.8": [darken(path, 0.8) for path in test],
        "test, brightness x0.6": [darken(path, 0.6) for path in test],
        "another sensor": [path.read_bytes() for path in sorted((data / "neon").rglob("*.jpg"))],
        "photographs": [path.read_bytes() for path in sorted((data / "photos").rglob("*.jpg"))[::_PHOTOGRAPHS]],
        "samples": [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))],
    }
    for group, images in groups.items():
        yield group, [predict_image(backend, image) for image in images]
    backend.close()


def darken(path: Path, factor: float) -> bytes:
    """The image as JPEG, as if taken with a shorter exposure."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").point(lambda level: int(level * factor)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_features(data: Path) -> None:
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for group, predictions in predict_groups(data):
            observed = observe_predictions(predictions)
            for index, row in zip(observed.classes.tolist(), observed.measures.tolist(), strict=True):
                assert len(row) == len(MEASURES)
                writer.writerow([group, index, *(f"{value:.6g}" for value in row)])


if __name__ == "__main__":
    write_features(Path(sys.argv[1]))
