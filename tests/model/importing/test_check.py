"""The check of .keras and .h5 files against the allow-list, before Keras opens them."""

from __future__ import annotations

import json
import lzma
import random
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from model.errors import UnsafeModelFile
from model.importing.check import CheckedModel, check_model_file
from model.importing.config import check_config, parse_config
from model.importing.hdf5.check import check_hdf5
from tests.model.importing.hdf5_files import Dataset, Group, write_hdf5
from tests.model.importing.model_files import (
    METADATA,
    WEIGHTS,
    dense,
    layer,
    model,
    write_h5,
    write_hostile,
    write_keras,
)
from tests.support.paths import ROOT

FIXTURES = Path(__file__).parent / "fixtures"
SHIPPED = sorted((ROOT / "artifacts").glob("*/model.keras"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_models_pass(path: Path) -> None:
    """The shipped .keras files pass the allow-list."""
    assert check_model_file(path).format == "keras"


def test_file_of_keras_3_7_passes() -> None:
    """A .keras file saved by Keras 3.7.0 passes the allow-list."""
    path = ROOT / "tests" / "model" / "fixtures" / "keras_3_7_0.keras"
    assert check_model_file(path) == CheckedModel("keras", "3.7.0")


@pytest.mark.parametrize("name", ["hdf5_default.h5", "hdf5_1_8.h5"])
def test_both_formats_of_hdf5_pass(name: str) -> None:
    """An .h5 file of Keras passes in the default format of h5py and in that of HDF5 1.8 with an indexed group."""
    assert check_model_file(FIXTURES / name) == CheckedModel("h5", "3.15.1")


def test_reader_of_hdf5_reaches_every_object() -> None:
    """The reader visits every data set of a group, so that it rejects chunked storage in any of them."""
    data = (FIXTURES / "hdf5_1_8.h5").read_bytes()
    layouts = [index for index in range(len(data)) if data[index : index + 4] == b"\x08\x12\x00\x00"]
    assert len(layouts) >= 22  # the kernel and the bias of ten convolutions and a dense layer
    found = 0
    for position in layouts:
        damaged = data[: position + 5] + b"\x02" + data[position + 6 :]  # chunked storage
        try:
            check_hdf5(damaged)
        except UnsafeModelFile:
            found += 1
    assert found == len(layouts)


def test_every_efficientnet_passes() -> None:
    """The configurations of EfficientNetB0 to B7 of keras.applications pass the allow-list."""
    configs = json.loads(lzma.decompress((FIXTURES / "efficientnets.json.xz").read_bytes()))
    assert sorted(configs) == [f"EfficientNetB{number}" for number in range(8)]
    for name, config in configs.items():
        check_config(config, name, has_modules=True)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_harmless_twin_of_the_hostile_files_passes(suffix: str, tmp_path: Path) -> None:
    """The benign base of the hostile files passes, so that each of those is rejected for its change alone."""
    path = write_hostile("benign", tmp_path / f"model{suffix}", tmp_path / "canary")
    assert check_model_file(path) == CheckedModel("keras" if suffix == ".keras" else "h5", "3.15.1")


def keras_2_13_model() -> dict[str, Any]:
    """A model as Keras 2.13 writes it to .keras files, compiled."""
    initializer: dict[str, Any] = {
        "module": "keras.initializers",
        "class_name": "Zeros",
        "config": {},
        "registered_name": None,
    }
    optimizer = {"module": "keras.optimizers", "class_name": "Adam", "registered_name": None}
    first = layer("InputLayer", batch_input_shape=[None, 64, 64, 3], dtype="float32", sparse=False, ragged=False)
    last = dense(bias_initializer=initializer, dtype="float32")
    last["inbound_nodes"] = [[["inputlayer", 0, 0, {}]]]
    return {
        "module": "keras.src.engine.functional",
        "class_name": "Functional",
        "registered_name": "Functional",
        "config": {"name": "model", "layers": [first, last], "input_layers": [["inputlayer", 0, 0]]},
        "build_config": {"input_shape": [None, 64, 64, 3]},
        "compile_config": {
            "optimizer": {**optimizer, "config": {"learning_rate": 0.001, "is_legacy_optimizer": False}},
            "loss": {"module": "builtins", "class_name": "function", "config": "mean_squared_error"},
            "metrics": {"dense": ["accuracy"]},
        },
    }


def test_models_of_keras_2_13_pass(tmp_path: Path) -> None:
    """The classes, modules and members of Keras 2.13 pass, in .keras and, without modules, in .h5 files."""
    check_config(keras_2_13_model(), "config.json", has_modules=True)
    legacy = {
        "class_name": "Sequential",
        "config": {"name": "x", "layers": [{"class_name": "Dense", "config": {"units": 3, "activation": "softmax"}}]},
    }
    assert check_model_file(write_h5(tmp_path / "model.h5", legacy)).format == "h5"
    training = {"optimizer_config": {"class_name": "Custom>Adam", "config": {"learning_rate": 0.1}}, "loss": "mse"}
    check_config(training, "training_config", has_modules=False)


@pytest.mark.parametrize("version", ["2.12.0", "3.16.0", "4.0.0", "", "3.7.0\x1b[2J", 3.7, None])
def test_other_versions_of_keras_are_rejected(version: object, tmp_path: Path) -> None:
    """Only files that name a version from 2.13 to 3.15 are accepted."""
    path = tmp_path / "model.keras"
    with ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({**METADATA, "keras_version": version}))
        archive.writestr("config.json", json.dumps(model(dense())))
        archive.writestr("model.weights.h5", write_hdf5(WEIGHTS))
    with pytest.raises(UnsafeModelFile, match="saved by the Keras version") as refusal:
        check_model_file(path)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000, "nested too deeply|not valid JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_unusual_json_is_rejected(text: bytes, reason: str) -> None:
    """JSON that is nested deeply, ambiguous, not an object or not UTF-8 is rejected."""
    with pytest.raises(UnsafeModelFile, match=reason):
        parse_config(text, "config.json")


def test_deep_configuration_is_rejected() -> None:
    """A configuration of more than 64 levels is rejected before Python's own limit is reached."""
    nested: dict[str, Any] = {}
    for _ in range(200):
        nested = {"config": nested}
    with pytest.raises(UnsafeModelFile, match="levels deep"):
        check_config(nested, "config.json", has_modules=True)


def test_messages_hold_no_control_characters(tmp_path: Path) -> None:
    """Names from the file are escaped and shortened in messages, so that they cannot control a terminal."""
    config = model(layer("Dense", **{"\x1b[2J" + "x" * 1000: 1}))
    with pytest.raises(UnsafeModelFile) as refusal:
        check_model_file(write_keras(tmp_path / "model.keras", config))
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("name", ["model.zip", "model", "absent.keras"])
def test_other_files_are_rejected(name: str, tmp_path: Path) -> None:
    """Files with other suffixes and missing files are rejected."""
    if name != "absent.keras":
        write_keras(tmp_path / name, model(dense()))
    with pytest.raises(UnsafeModelFile):
        check_model_file(tmp_path / name)


def test_weights_without_a_model_are_rejected(tmp_path: Path) -> None:
    """An .h5 file of weights alone is rejected, and the message says what to save."""
    (tmp_path / "weights.h5").write_bytes(write_hdf5(WEIGHTS))
    with pytest.raises(UnsafeModelFile, match="no model"):
        check_model_file(tmp_path / "weights.h5")


@pytest.mark.parametrize("source", ["written", "hdf5_default.h5", "hdf5_1_8.h5"])
def test_damaged_hdf5_is_rejected_or_read(source: str) -> None:
    """Whichever bytes of an HDF5 file change, the reader returns or raises UnsafeModelFile."""
    benign = Group({"layers": Group({"vars": Dataset()})}, {"model_config": "{}"})
    original = write_hdf5(benign) if source == "written" else (FIXTURES / source).read_bytes()
    generator = random.Random(7)  # noqa: S311  (reproducible damage)
    refused = 0
    for _ in range(150):
        data = bytearray(original)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.choice((0, 1, 0xFF, generator.randrange(256)))
        with suppress(UnsafeModelFile):
            check_hdf5(bytes(data[: generator.choice((len(data), generator.randrange(len(data))))]))
            continue
        refused += 1
    assert refused > 50
