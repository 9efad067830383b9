"""The head of a model: its logits, their gradients, and its file."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import ArtefactError, DigestMismatch
from model.explanation import head
from model.explanation.head import HEAD_FILE, DenseLayer, Head, read_head, write_head
from model.registry.artefact import Manifest, write_manifest
from tests.model.explanation.heads import make_head

CLASSES = ("land", "water", "cloud")
Arrays = dict[str, Any]


def describe(folder: Path) -> Manifest:
    """Write the manifest of a folder with a head."""
    return write_manifest(
        folder,
        name="tiny",
        version="1.0",
        classes=CLASSES,
        outputs={},
        filenames=[HEAD_FILE],
        data={},
        results={},
        tools={},
    )


def load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)], ids=["one layer", "two layers", "three layers"])
def test_gradient_is_the_slope_of_the_logit(hidden: tuple[int, ...]) -> None:
    """A small step in each direction changes the logit by the gradient's component times the step."""
    head = make_head(6, *hidden, 3)
    pooled = np.random.default_rng(1).uniform(0, 1, 6).astype(np.float32)
    steps = np.eye(6, dtype=np.float32) * 1e-3
    for index in range(3):
        slopes = (head.compute_logits(pooled + steps) - head.compute_logits(pooled - steps))[:, index] / 2e-3
        np.testing.assert_allclose(head.differentiate(pooled, index), slopes, atol=2e-2)


def test_relu_that_is_off_lets_no_gradient_pass() -> None:
    """A hidden unit whose input is not positive does not contribute to the gradient."""
    identity = np.eye(2, dtype=np.float32)
    zeros = np.zeros(2, np.float32)
    head = Head((DenseLayer(identity, zeros, relu=True), DenseLayer(np.ones((2, 2), np.float32), zeros, relu=False)))
    assert head.differentiate(np.array([3, -3], np.float32), 0).tolist() == [1, 0]
    assert head.differentiate(np.array([3, 0], np.float32), 0).tolist() == [1, 0]


def test_a_head_is_read_as_written(tmp_path: Path) -> None:
    """Reading returns the exact weights, activations and offset; writing them again gives identical bytes."""
    head = make_head(6, 4, 3, offset=(0.5, -0.25))
    write_head(tmp_path / HEAD_FILE, head)
    first = (tmp_path / HEAD_FILE).read_bytes()
    read = read_head(tmp_path, describe(tmp_path), 6)
    assert read is not None
    assert read.offset == (0.5, -0.25)
    assert [layer.relu for layer in read.layers] == [True, False]
    for written, layer in zip(head.layers, read.layers, strict=True):
        assert np.array_equal(layer.kernel, written.kernel)
        assert np.array_equal(layer.bias, written.bias)
    write_head(tmp_path / HEAD_FILE, read)
    assert (tmp_path / HEAD_FILE).read_bytes() == first


def test_an_artefact_without_the_file_has_no_head(tmp_path: Path) -> None:
    """An artefact whose manifest does not list the file has no head, even if the file exists."""
    write_head(tmp_path / HEAD_FILE, make_head(6, 3))
    manifest = write_manifest(
        tmp_path, name="old", version="1.0", classes=CLASSES, outputs={}, filenames=[], data={}, results={}, tools={}
    )
    assert read_head(tmp_path, manifest, 6) is None


def test_a_changed_file_is_rejected(tmp_path: Path) -> None:
    """A head that differs from the digest in the manifest raises DigestMismatch."""
    write_head(tmp_path / HEAD_FILE, make_head(6, 3))
    manifest = describe(tmp_path)
    write_head(tmp_path / HEAD_FILE, make_head(6, 3, seed=1))
    with pytest.raises(DigestMismatch):
        read_head(tmp_path, manifest, 6)


def test_a_head_of_another_model_is_rejected(tmp_path: Path) -> None:
    """The head must take the channels of the graph and return the classes of the manifest."""
    write_head(tmp_path / HEAD_FILE, make_head(6, 3))
    manifest = describe(tmp_path)
    with pytest.raises(ArtefactError, match="maps 6 feature maps to 3 classes, but the graph has 7"):
        read_head(tmp_path, manifest, 7)
    write_head(tmp_path / HEAD_FILE, make_head(6, 4))
    with pytest.raises(ArtefactError, match="maps 6 feature maps to 4 classes"):
        read_head(tmp_path, describe(tmp_path), 6)


def test_large_arrays_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays are not read if they take more memory than a head needs."""
    write_head(tmp_path / HEAD_FILE, make_head(6, 3))
    monkeypatch.setattr(head, "_MAX_BYTES", 100)
    with pytest.raises(ArtefactError, match="or take more than 100 bytes"):
        read_head(tmp_path, describe(tmp_path), 6)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_arrays_are_rejected(tmp_path: Path, compression: int) -> None:
    """A small compressed file can expand to gigabytes, whatever size it declares."""
    with zipfile.ZipFile(tmp_path / HEAD_FILE, "w", compression) as archive:
        archive.writestr("relu.npy", bytes(1000))
    with pytest.raises(ArtefactError, match="its arrays are compressed"):
        read_head(tmp_path, describe(tmp_path), 6)


MALFORMED: dict[str, Callable[[Arrays], Arrays]] = {
    "a kernel is missing": lambda arrays: {k: v for k, v in arrays.items() if k != "kernel_1"},
    "the activations are missing": lambda arrays: {k: v for k, v in arrays.items() if k != "relu"},
    "there is another array": lambda arrays: {**arrays, "kernel_2": arrays["kernel_1"]},
    "there is no layer": lambda arrays: {"relu": np.zeros(0, np.bool_), "offset": arrays["offset"]},
    "activations are numbers": lambda arrays: {**arrays, "relu": np.array([7.0, 0.0])},
    "weights are doubles": lambda arrays: {**arrays, "bias_0": arrays["bias_0"].astype(np.float64)},
    "a weight is not a number": lambda arrays: {**arrays, "bias_0": arrays["bias_0"] * np.float32("nan")},
    "layers do not fit together": lambda arrays: {**arrays, "kernel_1": arrays["kernel_1"][:2]},
    "a bias does not fit": lambda arrays: {**arrays, "bias_1": arrays["bias_1"][:2]},
    "a kernel has one axis": lambda arrays: {**arrays, "kernel_0": arrays["kernel_0"][0]},
    "a kernel has three axes": lambda arrays: {**arrays, "kernel_0": arrays["kernel_0"][..., None]},
    "the offset is large": lambda arrays: {**arrays, "offset": np.array([0, 5], np.float32)},
    "the offset is not a number": lambda arrays: {**arrays, "offset": np.array([0, np.nan], np.float32)},
    "the offset has one value": lambda arrays: {**arrays, "offset": np.zeros(1, np.float32)},
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_malformed_arrays_are_rejected(tmp_path: Path, change: Callable[[Arrays], Arrays]) -> None:
    """A file whose arrays are not those of a head raises an ArtefactError that says what to do."""
    write_head(tmp_path / HEAD_FILE, make_head(6, 4, 3))
    np.savez(tmp_path / HEAD_FILE, allow_pickle=False, **change(load(tmp_path / HEAD_FILE)))
    with pytest.raises(ArtefactError, match="Export the model again"):
        read_head(tmp_path, describe(tmp_path), 6)


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 not a zip", pickle.dumps([1])], ids=range(4))
def test_files_that_hold_no_arrays_are_rejected(tmp_path: Path, data: bytes) -> None:
    """Anything but an .npz file raises ArtefactError."""
    (tmp_path / HEAD_FILE).write_bytes(data)
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_head(tmp_path, describe(tmp_path), 6)


class _Touch:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    """An array of Python objects, which could run code when it is loaded, raises ArtefactError and runs nothing."""
    write_head(tmp_path / HEAD_FILE, make_head(6, 4, 3))
    arrays = load(tmp_path / HEAD_FILE)
    arrays["bias_0"] = np.array([_Touch(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / HEAD_FILE, allow_pickle=True, **arrays)
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_head(tmp_path, describe(tmp_path), 6)
    assert not (tmp_path / "executed").exists()
