"""Opening back ends by URL, and the errors that prevent it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from model.backends.engines import SCHEMES, find_runtime_version
from model.backends.open import open_backend, open_warm
from model.backends.stub import StubBackend
from model.confidence.abstention import AbstentionReason, AbstentionRules, AerialGate
from model.confidence.model import ConfidenceModel
from model.errors import ArtefactError, BackendURLError, DigestMismatch, EngineMissing, KerasMissing
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from model.registry.artefact import write_manifest
from tests.model.backends.tiny_onnx import encode_graph, write_tiny_artefact
from tests.support.requirements import missing

GREY = np.full((1, 256, 256, 3), 128, np.uint8)


@pytest.fixture
def artefact_copy(artefact_folder: Path, tmp_path: Path) -> Path:
    """A copy of the shipped files that the gateway reads, for tests to damage."""
    for name in ("manifest.json", "model.onnx", "head.npz"):
        shutil.copyfile(artefact_folder / name, tmp_path / name)
    return tmp_path


def rewrite_manifest(folder: Path, **members: Any) -> None:
    """Write a manifest that matches the files, except for `members`."""
    document = json.loads((folder / "manifest.json").read_text())
    unchanged = {name: document[name] for name in ("name", "version", "classes", "outputs", "data", "tools")}
    unchanged |= {"filenames": ("model.onnx",), "results": document["figures"]}
    write_manifest(folder, **unchanged | members)


@pytest.mark.parametrize("url", ["", "onnx", "onnx://", "keras://", "tensorflow://x", "/models/a", "ONNX://models/a"])
def test_the_error_for_an_invalid_url_lists_the_schemes(url: str) -> None:
    """The error for an invalid URL lists the supported schemes."""
    with pytest.raises(BackendURLError, match=r"onnx://, onnx\+cuda://, onnx\+openvino://, keras://, stub://"):
        open_backend(url)


@pytest.mark.parametrize("scheme", sorted(SCHEMES.keys() - {"onnx"}))
def test_a_missing_engine_is_an_error(artefact_folder: Path, scheme: str) -> None:
    """The CPU does not replace an engine that the installed ONNX Runtime lacks: the error names the package."""
    if SCHEMES[scheme] in onnxruntime.get_available_providers():
        open_backend(f"{scheme}://{artefact_folder}").close()
    else:
        with pytest.raises(EngineMissing, match=r"Install onnxruntime-.* in place of onnxruntime, or use onnx://"):
            open_backend(f"{scheme}://{artefact_folder}")


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"])
def test_the_version_is_that_of_the_installed_package(tmp_path: Path, package: str) -> None:
    """ONNX Runtime's version is found in whichever of its packages is installed."""
    metadata = tmp_path / f"{package.replace('-', '_')}-7.8.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 7.8.9\n")
    assert find_runtime_version([str(tmp_path)]) == "7.8.9"
    with pytest.raises(PackageNotFoundError):
        find_runtime_version([str(tmp_path.parent)])


def test_back_ends_are_imported_lazily() -> None:
    """Opening the stub imports neither ONNX Runtime nor Keras."""
    program = (
        "import sys; from model.backends.open import open_backend; open_backend('stub://');"
        "print({'onnxruntime', 'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_relative_path_starts_at_the_working_directory(artefact_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx://FOLDER accepts relative and absolute paths."""
    monkeypatch.chdir(artefact_copy.parent)
    relative, absolute = open_backend(f"onnx://{artefact_copy.name}"), open_backend(f"onnx://{artefact_copy}")
    assert relative.info.digest == absolute.info.digest
    assert np.array_equal(relative.predict(GREY), absolute.predict(GREY))


def test_the_digest_is_that_of_the_file_served(artefact_folder: Path) -> None:
    """The reported digest is the SHA-256 of the graph, as sha256sum prints it."""
    document = json.loads((artefact_folder / "manifest.json").read_text())
    info = open_backend(f"onnx://{artefact_folder}").info
    assert info.digest == document["files"]["model.onnx"]["sha256"]
    assert list(info.classes) == document["classes"]


def test_a_changed_graph_is_not_loaded(artefact_copy: Path) -> None:
    """A graph with one flipped bit raises DigestMismatch."""
    graph = bytearray((artefact_copy / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (artefact_copy / "model.onnx").write_bytes(graph)
    with pytest.raises(DigestMismatch):
        open_backend(f"onnx://{artefact_copy}")


def test_a_file_that_is_not_a_graph_is_an_artefact_error(artefact_copy: Path) -> None:
    """A file that is not ONNX raises ArtefactError although its digest matches."""
    (artefact_copy / "model.onnx").write_bytes(b"not a graph")
    rewrite_manifest(artefact_copy)
    with pytest.raises(ArtefactError, match="cannot be loaded"):
        open_backend(f"onnx://{artefact_copy}")


def test_a_graph_with_another_number_of_classes_is_an_artefact_error(artefact_copy: Path) -> None:
    """A manifest with more or fewer classes than the graph raises ArtefactError."""
    rewrite_manifest(artefact_copy, classes=["beach", "forest"])
    with pytest.raises(ArtefactError, match="number of classes"):
        open_backend(f"onnx://{artefact_copy}")


def test_a_graph_with_another_input_is_an_artefact_error(artefact_copy: Path) -> None:
    """A manifest whose input size differs from the graph's raises ArtefactError."""
    rewrite_manifest(artefact_copy, input_spec=InputSpec(192, 192))
    with pytest.raises(ArtefactError, match="inputs or outputs"):
        open_backend(f"onnx://{artefact_copy}")


def test_a_gate_for_another_graph_is_an_artefact_error(artefact_copy: Path) -> None:
    """A gate whose number of weights differs from the graph's number of feature maps raises ArtefactError."""
    gate = AerialGate(np.ones(3, np.float32), 0.0)
    rewrite_manifest(artefact_copy, confidence=ConfidenceModel(abstention=AbstentionRules(gate)))
    with pytest.raises(ArtefactError, match="3 weights, but the graph has 1280 feature maps"):
        open_backend(f"onnx://{artefact_copy}")


@pytest.mark.parametrize(("weights", "opens"), [(3, True), (2, False)])
def test_a_gate_fits_a_graph_that_leaves_the_feature_maps_open(tmp_path: Path, weights: int, opens: bool) -> None:
    """If the graph leaves the number of feature maps open, the first prediction shows whether the gate fits it."""
    spec = InputSpec(12, 8)
    write_tiny_artefact(tmp_path, spec, with_head=True)
    (tmp_path / "model.onnx").write_bytes(encode_graph(spec, leaves_channels_open=True))
    rules = AbstentionRules(AerialGate(np.ones(weights, np.float32), 0.0))
    filenames = ("model.onnx", "head.npz")
    rewrite_manifest(tmp_path, confidence=ConfidenceModel(abstention=rules), input_spec=spec, filenames=filenames)
    with nullcontext() if opens else pytest.raises(ArtefactError, match="cannot predict"):
        assert open_warm(f"onnx://{tmp_path}").head is not None


def test_a_version_that_predicts_no_finite_numbers_does_not_open(tmp_path: Path) -> None:
    """A model does not open if its first calibrated probabilities are not finite."""
    write_tiny_artefact(tmp_path, InputSpec(12, 8))
    document = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**document, "calibration": {"temperature": 1e-320}}))
    with pytest.raises(ArtefactError, match="not finite"):
        open_warm(f"onnx://{tmp_path}")


def test_results_do_not_keep_the_memory_of_the_session(artefact_folder: Path) -> None:
    """Results are copies: a view would keep all of the runtime's memory allocated after the back end is closed."""
    backend, blank = open_backend(f"onnx://{artefact_folder}"), np.zeros((1, 256, 256, 3), np.uint8)
    results = [backend.predict(blank), *backend.predict_pooled(blank), *backend.predict_with_features(blank)]
    assert [result.base for result in results] == [None] * 5
    backend.close()


def test_graphs_of_bytes_and_of_floats_give_the_same_results(tmp_path: Path) -> None:
    """A graph that takes float32, as older exports do, gives the same results as one that takes uint8."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 12, 3), np.uint8)
    results = []
    for dtype in ("uint8", "float32"):
        (tmp_path / dtype).mkdir()
        backend = open_backend(f"onnx://{write_tiny_artefact(tmp_path / dtype, InputSpec(12, 8, dtype=dtype))}")
        assert backend.info.input_spec.dtype == dtype
        results.append([*backend.predict_with_features(pixels), *backend.predict_pooled(pixels)])
        backend.close()
    assert all(np.array_equal(of_bytes, of_floats) for of_bytes, of_floats in zip(*results, strict=True))


def test_the_graph_decides_the_type_of_the_input(tmp_path: Path) -> None:
    """If the manifest does not state the input's type, the back end uses the type of the graph."""
    write_tiny_artefact(tmp_path, InputSpec(12, 8, dtype="uint8"))
    document = json.loads((tmp_path / "manifest.json").read_text())
    del document["input"]["dtype"]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert open_backend(f"onnx://{tmp_path}").info.input_spec.dtype == "uint8"


def test_a_graph_without_a_declared_output_is_an_artefact_error(artefact_copy: Path) -> None:
    """An output that the manifest declares and the graph lacks raises ArtefactError."""
    rewrite_manifest(artefact_copy, outputs={"probabilities": "float32", "features": "float32", "logits": "float32"})
    with pytest.raises(ArtefactError, match="inputs or outputs"):
        open_backend(f"onnx://{artefact_copy}")


@pytest.mark.keras
def test_keras_and_onnx_agree(artefact_folder: Path, samples: list[Path]) -> None:
    """The served graph gives the probabilities and feature maps of the trained model to within 1e-4 and 1e-2."""
    pixels = np.stack([decode_image(path.read_bytes(), DEFAULT_INPUT).pixels for path in samples])
    trained = open_backend(f"keras://{artefact_folder}").predict_with_features(pixels)
    served = open_backend(f"onnx://{artefact_folder}").predict_with_features(pixels)
    np.testing.assert_allclose(served[0], trained[0], atol=1e-4)
    np.testing.assert_allclose(served[1], trained[1], atol=1e-2)


def test_without_keras_the_error_names_the_alternatives(artefact_folder: Path) -> None:
    """keras:// raises KerasMissing in an environment without Keras."""
    if find_spec("keras") is not None:
        missing("Keras is installed here")
    with pytest.raises(KerasMissing, match="Keras is not installed"):
        open_backend(f"keras://{artefact_folder}")


def test_the_url_sets_the_latency_of_the_stub() -> None:
    """stub://?latency_ms=20 sets the latency to 20 ms, and does not change predictions."""
    backend = open_backend("stub://?latency_ms=20")
    assert isinstance(backend, StubBackend)
    assert backend.latency_s == 0.02
    assert np.array_equal(backend.predict(GREY), StubBackend().predict(GREY))


def test_the_url_lets_the_stub_hang() -> None:
    """stub://?hang=white hangs on a white image, and predicts all others in the same way as stub://."""
    backend = open_backend("stub://?hang=white&latency_ms=1")
    hanging = threading.Thread(target=backend.predict, args=[np.full_like(GREY, 255)], daemon=True)
    hanging.start()
    assert np.array_equal(backend.predict(GREY), StubBackend().predict(GREY))
    hanging.join(0.2)  # it does not end, however long this is
    assert hanging.is_alive()


def test_the_url_lets_the_stub_abstain() -> None:
    """stub://?min_confidence=0.9 abstains from predictions with a lower confidence."""
    rules = open_backend("stub://?min_confidence=0.9").info.confidence.abstention
    assert rules.find_reason(rules.score(np.zeros(3, np.float32)), 0.89) is AbstentionReason.LOW_CONFIDENCE


@pytest.mark.parametrize(
    "rest",
    ["latency", "?hang=grey", "?latency_ms=fast", "?latency_ms=-1", "?latency_ms=nan", "?speed=3", "?min_confidence=2"],
)
def test_an_invalid_stub_url_is_an_error(rest: str) -> None:
    """Unknown parameters and invalid values raise BackendURLError."""
    with pytest.raises(BackendURLError, match="latency_ms"):
        open_backend(f"stub://{rest}")
