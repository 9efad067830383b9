"""Model files for the import gate: a benign one, and hostile ones in both formats.

The payloads write a canary file; the tests check that it never appears.
"""

from __future__ import annotations

import json
import pickle
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from tests.model.importing.hdf5_files import Dataset, Group, Link, write_hdf5

Config = dict[str, Any]
METADATA = {"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}
WEIGHTS = Group({"layers": Group({"dense": Group({"vars": Group({"0": Dataset(), "1": Dataset()})})})})


def keras(module: str, class_name: str, config: Any, **members: Any) -> Config:
    """A serialised object."""
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None, **members}


def layer(name: str, **config: Any) -> Config:
    return keras("keras.layers", name, {"name": name.lower(), **config}, name=name.lower(), inbound_nodes=[])


def model(*layers: Config, **members: Any) -> Config:
    """A functional model whose first layer is its input, with `layers` after it."""
    first = layer("InputLayer", batch_shape=[None, 64, 64, 3], dtype="float32")
    config = {"name": "functional", "layers": [first, *layers], "input_layers": [], "output_layers": []}
    return keras("keras.src.models.functional", "Functional", config, **members)


def dense(**config: Any) -> Config:
    return layer("Dense", units=21, activation="softmax", **config)


def function(module: str, name: str) -> Config:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def write_keras(path: Path, config: Config, weights: bytes | Group = WEIGHTS, **options: Any) -> Path:
    """Write a .keras file."""
    data = weights if isinstance(weights, bytes) else write_hdf5(weights)
    with ZipFile(path, "w", **options) as archive:
        archive.writestr("metadata.json", json.dumps(METADATA))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", data)
    return path


def write_h5(path: Path, config: Config, weights: Mapping[str, Group | Dataset | Link] | None = None) -> Path:
    """Write an .h5 file."""
    attributes = {"keras_version": "3.15.1", "backend": "tensorflow", "model_config": json.dumps(config)}
    members = {"model_weights": WEIGHTS} if weights is None else weights
    path.write_bytes(write_hdf5(Group(members, attributes)))
    return path


def hostile_configs(canary: Path) -> dict[str, Config]:
    """Configurations, each of which runs code, reads a file or loads another model in some release of Keras."""
    code = f"open({str(canary)!r}, 'w')"
    lambda_value = {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}
    lambda_layer = layer("Lambda", function=lambda_value, arguments={})
    unsafe = function("keras.config", "enable_unsafe_deserialization")
    get_file = function("keras.utils", "get_file")
    return {
        "lambda": model(lambda_layer),
        "lambda_in_a_nested_model": model(model(lambda_layer)),
        "lambda_in_a_wrapper": model(layer("TimeDistributed", layer=lambda_layer)),
        "lambda_as_an_activation": model(layer("Dense", units=21, activation=lambda_value)),
        "exec_as_an_initializer": model(dense(kernel_initializer=keras("builtins", "exec", {"source": code}))),
        "exec_as_a_function": model(dense(kernel_initializer=function("builtins", "exec"))),
        "exec_by_name": model(dense(kernel_initializer="exec")),
        "system_of_another_module": model(keras("os", "system", {"command": f"touch {canary}"})),
        "unsafe_deserialization": model(layer("Activation", activation=unsafe)),
        "download": model(layer("Activation", activation=get_file, arguments={"fname": str(canary)})),
        "other_model": model(dense(), model(dense(), custom_objects={"Dense": "exec"})),
        "tfsm_layer": model(layer("TFSMLayer", filepath="/tmp/saved_model", call_endpoint="serve")),  # noqa: S108
        "vocabulary_of_a_string_lookup": model(layer("StringLookup", vocabulary="/etc/passwd")),
        "vocabulary_of_a_text_vectorization": model(layer("TextVectorization", vocabulary="/etc/passwd")),
        "vocabulary_of_an_allowed_layer": model(layer("Normalization", vocabulary="words.txt")),
        "file_of_an_allowed_layer": model(layer("Rescaling", scale="/etc/passwd")),
        "spoofed_module": model(keras("keras.src.saving.saving_lib", "Dense", {"units": 21})),
        "module_that_begins_alike": model(keras("keras.layers.evil", "Dense", {"units": 21})),
        "registered_custom_object": model(keras("keras.layers", "Dense", {}, registered_name="evil>Dense")),
        "custom_object": model(keras("evil", "Dense", {"units": 21}, registered_name="evil>Dense")),
        "custom_loss": model(dense(), compile_config={"optimizer": "adam", "loss": function("evil", "loss")}),
        "nested_compile_config": model(model(dense(), compile_config={"loss": keras("evil", "Loss", {})})),
        "typespec": model(dense(dtype={"class_name": "__typespec__", "spec_name": "evil", "config": []})),
        "path_in_an_inbound_node": model({**dense(), "inbound_nodes": [{"args": [], "kwargs": {"inputs": "/etc/x"}}]}),
        "no_model": dense(),
    }


def _write_traversal(path: Path, canary: Path) -> None:
    write_keras(path, model(dense()))
    with ZipFile(path, "a") as archive:
        archive.writestr(f"../{canary.name}", "written outside of the folder")


def _write_pickled_array(path: Path, canary: Path) -> None:
    write_keras(path, model(dense()))
    with ZipFile(path, "a") as archive:
        archive.writestr("model.weights.npz", pickle.dumps(_Payload(canary)))


def _write_symlink(path: Path, canary: Path) -> None:
    link = ZipInfo("model.weights.h5")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps(METADATA))
        archive.writestr("config.json", json.dumps(model(dense())))
        archive.writestr(link, str(canary))


def _write_config_twice(path: Path, canary: Path) -> None:
    write_keras(path, hostile_configs(canary)["lambda"])
    with ZipFile(path, "a") as archive:  # zipfile would warn about a second member of the same name
        archive.writestr("config.jsom", json.dumps(model(dense())))
    path.write_bytes(path.read_bytes().replace(b"config.jsom", b"config.json"))


def _write_truncated(path: Path, canary: Path) -> None:
    write_hostile("benign", path, canary)
    path.write_bytes(path.read_bytes()[:-40])


class _Payload:
    """Unpickling an instance creates the canary."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self._canary), "w")


def _weights(**members: Group | Dataset | Link) -> Group:
    return Group({"layers": Group(members)})


HOSTILE_WEIGHTS = {
    "external_data": _weights(vars=Dataset(stored=0, external="/etc/passwd")),
    "external_link": _weights(vars=Link("/layers", file="../other.h5")),
    "soft_link": _weights(vars=Link("/layers")),
    "declared_size": _weights(vars=Dataset(declared=1 << 48, stored=0, allocated=False)),
    "compressed_data": _weights(vars=Dataset(compressed=True)),
    "objects": _weights(vars=Dataset(datatype=b"\x19\0\0\0\x10\0\0\0" + b"\x10\0\0\0\x01\0\0\0\0\0\x08\0")),
}
ARCHIVES: Mapping[str, Callable[[Path, Path], None]] = {
    "path_traversal": _write_traversal,
    "pickle_beside_the_weights": _write_pickled_array,
    "symlink": _write_symlink,
    "config_twice": _write_config_twice,
}
BOTH_FORMATS = [*hostile_configs(Path("canary")), *HOSTILE_WEIGHTS, "pickle", "bomb", "truncated"]


def write_hostile(kind: str, path: Path, canary: Path) -> Path:
    """Write the hostile file of that kind, in the format of the path's suffix; "benign" writes a harmless one."""
    is_archive = path.suffix == ".keras"
    if kind == "truncated":
        _write_truncated(path, canary)
    elif kind in ARCHIVES:
        ARCHIVES[kind](path, canary)
    elif kind == "pickle":
        data = pickle.dumps(_Payload(canary))
        if is_archive:
            write_keras(path, model(dense()), data)
        else:
            path.write_bytes(data)
    elif kind == "bomb":
        if is_archive:
            write_keras(path, model(dense()), b"\x89HDF\r\n\x1a\n" + bytes(8 << 20), compression=ZIP_DEFLATED)
        else:
            write_h5(path, model(dense()), {"model_weights": Dataset(declared=1 << 60, stored=0, allocated=False)})
    else:
        config = hostile_configs(canary).get(kind, model(dense()))
        weights = HOSTILE_WEIGHTS.get(kind, WEIGHTS)
        if is_archive:
            write_keras(path, config, weights)
        else:
            write_h5(path, config, {"model_weights": weights})
    return path
