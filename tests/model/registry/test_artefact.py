"""Artefact folders: their manifests, and verified reading of their files."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from model.drift.metrics import Metric
from model.drift.reference import MeasureReference, Reference
from model.errors import ArtefactError, DigestMismatch
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from model.registry.artefact import Manifest, read_manifest, read_verified, write_manifest

CONTENT = b"the bytes of a graph"
UNUSABLE_NAMES = ("../model.onnx", "..", ".", "", ".lock", "model\0onnx", "model\ud800", "m" * 300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artefact folder with one file."""
    (tmp_path / "model.onnx").write_bytes(CONTENT)
    write(tmp_path)
    return tmp_path


def write(folder: Path, drift: Reference | None = None) -> Manifest:
    return write_manifest(
        folder,
        name="tiny",
        version="1.2",
        classes=("beach", "forest"),
        outputs={"probabilities": "float32 [n, 2]", "features": "float32 [n, 8, 8, 3]"},
        filenames=("model.onnx",),
        data={"name": "none"},
        results={"accuracy": 0.5},
        tools={"onnx": "1"},
        drift=drift,
    )


def change(folder: Path, **members: Any) -> None:
    """Replace members of the manifest's document. None removes a member."""
    document = json.loads((folder / "manifest.json").read_text()) | members
    present = {name: value for name, value in document.items() if value is not None}
    (folder / "manifest.json").write_text(json.dumps(present))


def test_a_manifest_is_read_as_written(folder: Path) -> None:
    """Reading a written manifest returns an equal one."""
    manifest = read_manifest(folder)
    assert manifest == write(folder)
    assert manifest.full_name == "tiny-v1.2"
    assert manifest.classes == ("beach", "forest")


def test_a_reference_for_drift_is_read_as_written(folder: Path) -> None:
    """A manifest keeps its reference for drift, and a manifest with an invalid reference is rejected."""
    measures = {Metric.BRIGHTNESS: MeasureReference(2.0, (1.0, 2.0, 3.0))}
    reference = Reference(60, ("beach", "forest"), (0.25, 0.75), measures)
    write(folder, reference)
    assert read_manifest(folder).drift == reference
    change(folder, drift_reference={"images": 0})
    with pytest.raises(ArtefactError, match="Export the model again"):
        read_manifest(folder)


def test_a_manifest_is_json_with_schema_input_sizes_and_digests(folder: Path) -> None:
    """The document describes the model's input, and lists each file with its size and SHA-256."""
    document = json.loads((folder / "manifest.json").read_text())
    assert document["schema"] == 1
    assert document["input"] == {
        "shape": [256, 256, 3],
        "layout": "NHWC",
        "color": "RGB",
        "dtype": "float32",
        "range": [0, 255],
        "resize_filter": "bicubic",
    }
    assert document["figures"] == {"accuracy": 0.5}
    assert document["files"] == {
        "model.onnx": {"sha256": hashlib.sha256(CONTENT).hexdigest(), "bytes": len(CONTENT)},
    }


def test_absent_members_of_the_input_are_those_of_the_shipped_model(folder: Path) -> None:
    """Without a size, a manifest describes 256x256 pixels; without a filter, bicubic scaling."""
    change(folder, input=None)
    assert read_manifest(folder).input_spec == DEFAULT_INPUT
    change(folder, input={"shape": [160, 192, 3]})
    assert read_manifest(folder).input_spec == InputSpec(width=192, height=160)
    change(folder, input={"resize_filter": "bilinear"})
    assert read_manifest(folder).input_spec == InputSpec(resize_filter="bilinear")


def test_the_ground_resolution_of_the_input_is_kept(folder: Path) -> None:
    """A manifest may state the ground resolution of the training images; without it, the resolution is None."""
    assert read_manifest(folder).input_spec.ground_resolution_m is None
    change(folder, input={"ground_resolution_m": 0.3})
    assert read_manifest(folder).input_spec.ground_resolution_m == 0.3
    spec = InputSpec(ground_resolution_m=0.5)
    members: dict[str, Any] = {name: {} for name in ("outputs", "data", "results", "tools")}
    write_manifest(folder, name="a", version="1", classes=["x"], filenames=[], input_spec=spec, **members)
    assert read_manifest(folder).input_spec.ground_resolution_m == 0.5


def test_an_unchanged_file_is_returned(folder: Path) -> None:
    """The content of a file that matches its manifest is returned."""
    assert read_verified(folder, read_manifest(folder), "model.onnx") == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT[:-1], CONTENT + b"!", b""])
def test_a_changed_file_is_a_digest_mismatch(folder: Path, content: bytes) -> None:
    """One changed, missing or added byte raises DigestMismatch."""
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(DigestMismatch, match=r"model\.onnx differs from its manifest"):
        read_verified(folder, read_manifest(folder), "model.onnx")


def test_a_wrong_size_is_a_digest_mismatch(folder: Path) -> None:
    """A file with a matching digest but another size raises DigestMismatch."""
    entry = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "bytes": len(CONTENT) + 5}
    change(folder, files={"model.onnx": entry})
    with pytest.raises(DigestMismatch):
        read_verified(folder, read_manifest(folder), "model.onnx")


def test_memory_for_a_file_is_limited_by_its_size(folder: Path) -> None:
    """Reading a small file whose manifest announces the largest size takes little memory."""
    change(folder, files={"model.onnx": {"sha256": "0", "bytes": 2 << 30}})
    manifest = read_manifest(folder)
    tracemalloc.start()
    try:
        with pytest.raises(DigestMismatch):
            read_verified(folder, manifest, "model.onnx")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_error_for_a_missing_file_names_it(folder: Path) -> None:
    """The error for an incomplete folder names the missing file."""
    (folder / "model.onnx").unlink()
    with pytest.raises(ArtefactError, match=r"model\.onnx"):
        read_verified(folder, read_manifest(folder), "model.onnx")


def test_a_file_that_the_manifest_does_not_list_is_not_read(folder: Path) -> None:
    """A file in the folder that the manifest does not list raises ArtefactError."""
    (folder / "model.keras").write_bytes(CONTENT)
    with pytest.raises(ArtefactError, match=r"does not list model\.keras"):
        read_verified(folder, read_manifest(folder), "model.keras")


def test_a_folder_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    """The error contains the path of the missing manifest."""
    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        read_manifest(tmp_path / "nowhere")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'"manifest"', b"{}", b"\xff\xfe", b"[" * 100_000])
def test_an_invalid_manifest_is_an_error(tmp_path: Path, text: bytes) -> None:
    """Invalid JSON and JSON of another shape raise ArtefactError."""
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(ArtefactError, match="is not a manifest of schema 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "members",
    [
        {"schema": 2},
        {"calibration": {"temperature": 10**400}},
        {"prediction_sets": {"scores": [1e39]}},
        {"name": None},
        {"name": ""},
        {"version": 1.0},
        {"classes": ["beach", 7]},
        {"classes": None},
        {"input": {"shape": [224, 224, 1]}},
        {"input": {"shape": [224, 224]}},
        {"input": {"shape": [0, 224, 3]}},
        {"input": {"shape": ["224", 224, 3]}},
        {"input": {"layout": "NCHW"}},
        {"input": {"range": [0, 1]}},
        {"input": {"resize_filter": "sinc"}},
        {"input": {"ground_resolution_m": "0.3"}},
        {"input": {"normalise": True}},
        {"input": "256x256"},
        {"outputs": ["probabilities"]},
        *({"files": {name: {"sha256": "0", "bytes": 1}}} for name in UNUSABLE_NAMES),
        {"files": {"model.onnx": {"sha256": "0", "bytes": -1}}},
        {"files": {"model.onnx": {"sha256": "0", "bytes": "many"}}},
        {"files": {"model.onnx": {"sha256": "0", "bytes": (2 << 30) + 1}}},
        {"files": {"model.onnx": {"sha256": "0", "bytes": 10**30}}},
        {"files": {"model.onnx": {"bytes": 1}}},
    ],
)
def test_each_member_of_a_manifest_is_validated(folder: Path, members: dict[str, Any]) -> None:
    """A member that is missing, has another type or cannot be served raises ArtefactError."""
    change(folder, **members)
    with pytest.raises(ArtefactError, match="is not a manifest of schema 1"):
        read_manifest(folder)
