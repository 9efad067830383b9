"""Export a model: load it, convert it, compare, and write the artefact folder only if everything succeeds."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import keras
import numpy as np
from msgspec.structs import asdict
from numpy.typing import NDArray

from model.confidence.model import DEFAULT_CONFIDENCE, ConfidenceModel
from model.drift.reference import Reference
from model.errors import ExportRefused
from model.offline.export import ExportOptions
from model.offline.export.check import Agreement, CheckImages, check_softmax, collect_images, compare, predict_with_onnx
from model.offline.export.confidence import choose_sources, fit_artefact
from model.offline.export.convert import check_input, load_classifier, to_onnx
from model.offline.export.head import export_head
from model.offline.export.record import TrainingRecord, make_short_card, read_record
from model.registry.artefact import Manifest, write_manifest

_TOOLS = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy")
_OUTPUTS = {
    "probabilities": "float32 [n, classes], a softmax",
    "features": "float32 [n, height, width, channels], the input of the last global average pooling",
    "pooled": "float32 [n, channels], the mean of each feature map",
}


def export(options: ExportOptions, convert: Callable[[keras.Model], bytes] = to_onnx) -> Manifest:
    """Create the artefact folder `options.out` with model.keras, model.onnx, head.npz, MODEL_CARD.md and manifest.json.

    head.npz is left out if the model's head is not a chain of dense layers. The folder is created completely or not at
    all. Raises ExportRefused.
    """
    source, out = Path(options.model), Path(options.out)
    if out.exists():
        raise ExportRefused(f"{out} already exists. Choose another --out or another version.")
    if source.suffix != ".keras" or not is_zipfile(source):
        raise ExportRefused(f"{source} is not a .keras file. Create one with model.save('NAME.keras').")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        manifest = _write_artefact(folder, options, convert)
        folder.rename(out)
    return manifest


def _write_artefact(folder: Path, options: ExportOptions, convert: Callable[[keras.Model], bytes]) -> Manifest:
    source = Path(options.model)
    # Load the copy, so that the manifest has the digest of the model that is compared.
    model = load_classifier(shutil.copyfile(source, folder / "model.keras"))
    record = read_record(source, model.outputs[0].shape[-1])
    check_input(model, record.input_spec)
    images = collect_images(Path(options.images) if options.images is not None else None, record.input_spec)
    graph, agreement = _convert_and_compare(model, images, convert)
    (folder / "model.onnx").write_bytes(graph)
    (folder / "MODEL_CARD.md").write_text(_read_or_make_card(source, options.name, record))
    filenames = ("model.onnx", "model.keras", *export_head(folder, model, graph, images.pixels), "MODEL_CARD.md")
    results = {**record.results, "agreement": asdict(agreement)}
    manifest = _write_manifest(folder, options, record, filenames, results)
    sources = choose_sources(options, record)
    if sources is None:
        return manifest
    # Fit on outputs of the back end that will serve the artefact.
    confidence, fitted_results, drift = fit_artefact(folder, sources, options.origin)
    return _write_manifest(folder, options, record, filenames, {**results, **fitted_results}, confidence, drift)


def _write_manifest(
    folder: Path,
    options: ExportOptions,
    record: TrainingRecord,
    filenames: Sequence[str],
    results: Mapping[str, Any],
    confidence: ConfidenceModel = DEFAULT_CONFIDENCE,
    drift: Reference | None = None,
) -> Manifest:
    return write_manifest(
        folder,
        name=options.name,
        version=options.version,
        classes=record.classes,
        outputs=_OUTPUTS,
        filenames=filenames,
        data=record.data,
        results=results,
        tools={
            "saved_by": {"keras": record.saved_by},
            "training": record.tools,
            "export": {name: importlib.metadata.version(name) for name in _TOOLS},
        },
        input_spec=dataclasses.replace(record.input_spec, dtype="uint8"),
        confidence=confidence,
        drift=drift,
    )


def _convert_and_compare(
    model: keras.Model, images: CheckImages, convert: Callable[[keras.Model], bytes]
) -> tuple[bytes, Agreement]:
    print(f"Comparing Keras and ONNX on {len(images.pixels)} images, {images.real} of them real.", flush=True)
    expected = _predict_with_keras(model, images.pixels)
    check_softmax(expected)
    graph = convert(model)
    agreement = compare(expected, predict_with_onnx(graph, images.pixels), images.real)
    print(f"The largest difference of a probability is {agreement.largest_difference:.2e}.", flush=True)
    return graph, agreement


def _predict_with_keras(model: keras.Model, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(model.predict(pixels, batch_size=16, verbose=0), np.float32)


def _read_or_make_card(source: Path, name: str, record: TrainingRecord) -> str:
    card = source.with_name("MODEL_CARD.md")
    return card.read_text() if card.exists() else make_short_card(name, record)
