"""Measure an exported artefact on its golden set: accuracy, calibration, latency and memory."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends.onnx import OnnxBackend
from model.imaging.input_spec import InputSpec
from model.offline.dataset import LabelledFiles, find_test_folder, list_images, read_image
from model.offline.evaluate import evaluate, predict_images
from model.offline.export.patterns import generate_images
from model.offline.fitting.sources import FittingSources

_MAX_IMAGES = 2000
_TIMED_IMAGES = 64
_WARM_UP = 3


def measure_golden_set(
    folder: Path, sources: FittingSources | None, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Return the results of the artefact in `folder` on images that were used neither for training nor for fitting.

    These are the test images of `sources`, or otherwise the images that its split leaves out of fitting. Without
    sources, only latency and memory are measured, on generated images. Raises DatasetError.
    """
    gc.collect()
    before = _resident_bytes()
    with closing(OnnxBackend(folder)) as backend:
        files = None if sources is None else _choose_files(sources, backend.info.classes)
        pixels = _load_timed_images(files, backend.info.input_spec)
        latencies = _time_predictions(backend, pixels, clock)
        results: dict[str, Any] = {
            "latency_ms": {
                "images": len(latencies),
                "median": round(float(np.median(latencies)) * 1000, 2),
                "p95": round(float(np.quantile(latencies, 0.95)) * 1000, 2),
            },
            "memory_mb": round(max(0, _resident_bytes() - before) / 1e6, 1),
        }
        if files is not None:
            evaluation = evaluate(predict_images(backend, files.paths), files, backend.info)
            results["images"] = len(files)
            results |= {
                name: round(value, 4)
                for name, value in evaluation.as_dict().items()
                if name in {"accuracy", "macro_f1", "loss", "ece", "ece_raw"}
            }
    return results


def _choose_files(sources: FittingSources, classes: Sequence[str]) -> LabelledFiles:
    test = find_test_folder(sources.data)
    files = sources.split(classes)[0] if test is None else list_images(test, classes)
    step = -(-len(files) // _MAX_IMAGES)
    return LabelledFiles(files.paths[::step], files.labels[::step], files.classes)


def _load_timed_images(files: LabelledFiles | None, spec: InputSpec) -> list[NDArray[np.uint8]]:
    if files is None:
        return generate_images(_TIMED_IMAGES, spec.size)
    step = -(-len(files) // _TIMED_IMAGES)
    return [read_image(path, spec).pixels for path in files.paths[::step]]


def _time_predictions(
    backend: OnnxBackend, images: Sequence[NDArray[np.uint8]], clock: Callable[[], float]
) -> list[float]:
    """Return the seconds that each prediction of one image takes on one thread."""
    for image in images[:_WARM_UP]:
        backend.predict(image[np.newaxis])
    seconds = []
    for image in images:
        start = clock()
        backend.predict(image[np.newaxis])
        seconds.append(clock() - start)
    return seconds


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
