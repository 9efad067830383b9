from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.backends.open import open_backend
from model.backends.stub import StubBackend
from model.errors import ArtefactError, BackendURLError, DigestMismatch, KerasMissing
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.registry.artefact import write_manifest

GREY = np.full((1, 256, 256, 3), 128, np.uint8)


@pytest.fixture
def copy(artefact_folder: Path, tmp_path: Path) -> Path:
    """The manifest and the graph of the shipped model, to be spoilt."""
    for name in ("manifest.json", "model.onnx"):
        shutil.copyfile(artefact_folder / name, tmp_path / name)
    return tmp_path


def describe_anew(folder: Path, **members: Any) -> None:
    """Write a manifest that fits the files as they are, but for `members`."""
    document = json.loads((folder / "manifest.json").read_text()) | members
    kept = {name: document[name] for name in ("name", "version", "classes", "outputs", "data", "tools")}
    write_manifest(folder, filenames=("model.onnx",), results=document["figures"], **kept)


@pytest.mark.parametrize("url", ["", "onnx", "onnx://", "keras://", "tensorflow://x", "/models/a", "ONNX://models/a"])
def test_an_unknown_url_names_the_known_schemes(url: str) -> None:
    """Whoever mistypes the model's URL reads what would have been right."""
    with pytest.raises(BackendURLError, match="onnx://, keras://, stub://"):
        open_backend(url)


def test_back_ends_are_imported_when_used() -> None:
    """The stub needs neither ONNX Runtime nor Keras."""
    program = (
        "import sys; from model.backends.open import open_backend; open_backend('stub://');"
        "print({'onnxruntime', 'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_relative_path_starts_at_the_working_directory(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx://FOLDER may be written as the operator sees it."""
    monkeypatch.chdir(copy.parent)
    relative, absolute = open_backend(f"onnx://{copy.name}"), open_backend(f"onnx://{copy}")
    assert relative.info == absolute.info
    assert np.array_equal(relative.predict(GREY), absolute.predict(GREY))


def test_the_digest_is_that_of_the_file_served(artefact_folder: Path) -> None:
    """What the gateway reports can be compared with sha256sum."""
    document = json.loads((artefact_folder / "manifest.json").read_text())
    info = open_backend(f"onnx://{artefact_folder}").info
    assert info.digest == document["files"]["model.onnx"]["sha256"]
    assert list(info.classes) == document["classes"]


def test_a_changed_graph_is_not_loaded(copy: Path) -> None:
    """One flipped bit in the model keeps the gateway from starting."""
    graph = bytearray((copy / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (copy / "model.onnx").write_bytes(graph)
    with pytest.raises(DigestMismatch):
        open_backend(f"onnx://{copy}")


def test_a_file_that_is_no_graph_is_an_artefact_error(copy: Path) -> None:
    """A matching digest does not make a graph."""
    (copy / "model.onnx").write_bytes(b"not a graph")
    describe_anew(copy)
    with pytest.raises(ArtefactError, match="cannot be loaded"):
        open_backend(f"onnx://{copy}")


def test_a_graph_with_another_number_of_classes_is_an_artefact_error(copy: Path) -> None:
    """Class names that do not fit the outputs would name every image wrongly."""
    describe_anew(copy, classes=["beach", "forest"])
    with pytest.raises(ArtefactError, match="number of classes"):
        open_backend(f"onnx://{copy}")


def test_a_graph_without_a_promised_output_is_an_artefact_error(copy: Path) -> None:
    """An output that the manifest names and the graph lacks is found at start-up."""
    describe_anew(copy, outputs={"probabilities": "float32", "features": "float32", "logits": "float32"})
    with pytest.raises(ArtefactError, match="inputs or outputs"):
        open_backend(f"onnx://{copy}")


@pytest.mark.keras
def test_keras_and_onnx_agree(artefact_folder: Path, samples: list[Path]) -> None:
    """The graph that is served answers as the file that was trained, and pools the same feature maps."""
    pixels = np.stack([decode_image(path.read_bytes(), DEFAULT_INPUT).pixels for path in samples])
    trained = open_backend(f"keras://{artefact_folder}").predict_with_features(pixels)
    served = open_backend(f"onnx://{artefact_folder}").predict_with_features(pixels)
    np.testing.assert_allclose(served[0], trained[0], atol=1e-4)
    np.testing.assert_allclose(served[1], trained[1], atol=1e-2)


@pytest.mark.skipif(find_spec("keras") is not None, reason="Keras is installed here")
def test_keras_without_keras_says_what_to_do(artefact_folder: Path) -> None:
    """The serving environment has no Keras, and says so in words."""
    with pytest.raises(KerasMissing, match="Keras is not installed"):
        open_backend(f"keras://{artefact_folder}")


def test_the_stub_sleeps_as_long_as_its_url_says() -> None:
    """stub://?latency_ms=20 imitates a model of 20 ms."""
    backend = open_backend("stub://?latency_ms=20")
    assert isinstance(backend, StubBackend)
    assert backend.latency_s == 0.02
    assert np.array_equal(backend.predict(GREY), StubBackend().predict(GREY))


@pytest.mark.parametrize("rest", ["latency", "?latency_ms=fast", "?latency_ms=-1", "?latency_ms=nan", "?speed=3"])
def test_a_stub_url_that_cannot_be_read_is_an_error(rest: str) -> None:
    """Nothing in the URL is passed over in silence."""
    with pytest.raises(BackendURLError, match="latency_ms"):
        open_backend(f"stub://{rest}")
