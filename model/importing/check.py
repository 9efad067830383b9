"""Check a `.keras` or `.h5` file against the allow-list, without Keras and without creating an object from the file."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Literal

from msgspec import Struct

from model.errors import UnsafeModelFile
from model.importing.archive import CONFIG, METADATA, extract_weights, open_archive, read_member
from model.importing.config import check_config, parse_config
from model.importing.hdf5.check import SIGNATURE, check_hdf5

MAX_BYTES = 2 << 30  # of the file
_MAX_CONFIG_BYTES = 16 << 20
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})\.\d{1,3}[\w.+-]{0,20}")
_OLDEST, _NEWEST = (2, 13), (3, 15)
_MODELS = ("Functional", "Sequential", "Model")


class CheckedModel(Struct, frozen=True):
    """A file that passed the allow-list: its format, and the version of Keras that it declares."""

    format: Literal["keras", "h5"]
    keras_version: str


def check_model_file(path: Path, original: Path | None = None) -> CheckedModel:
    """Check a model file. Raises UnsafeModelFile with a message that names what is not allowed and where it is.

    If `path` is a copy, `original` is the file that was copied: messages name it instead.
    """
    shown = original or path
    try:
        with path.open("rb") as file:
            signature = file.read(len(SIGNATURE))
            size = file.seek(0, 2)
    except OSError as error:
        raise UnsafeModelFile(f"{shown} cannot be read: {error.strerror}.") from error
    if size > MAX_BYTES:
        raise UnsafeModelFile(
            f"{shown} has {size} bytes; at most {MAX_BYTES} are allowed. Save it without its optimizer."
        )
    if path.suffix == ".keras":
        return _check_archive(path, shown)
    if path.suffix in {".h5", ".hdf5"}:
        if signature != SIGNATURE:
            raise UnsafeModelFile(f"{shown} is not an HDF5 file. Create one with model.save('NAME.h5').")
        with path.open("rb") as file:
            return _check_hdf5_model(_check_hdf5_file(file))
    raise UnsafeModelFile(f"{shown} is neither a .keras nor an .h5 file. Save the model with model.save('NAME.keras').")


def _check_archive(path: Path, shown: Path) -> CheckedModel:
    with open_archive(path, shown) as archive:
        metadata = parse_config(read_member(archive, METADATA), METADATA)
        config = parse_config(read_member(archive, CONFIG), CONFIG)
        _check_is_model(config, CONFIG)
        check_config(config, CONFIG, has_modules=True)
        with extract_weights(archive) as weights:
            _check_hdf5_file(weights)
    return CheckedModel("keras", _check_version(metadata.get("keras_version")))


def _check_hdf5_model(attributes: Mapping[str, bytes]) -> CheckedModel:
    """Check the text attributes of the root of an `.h5` file, two of which contain JSON that Keras reads."""
    if "model_config" not in attributes:
        raise UnsafeModelFile("The file has weights, but no model. Save the whole model with model.save('NAME.keras').")
    for name in ("model_config", "training_config"):
        text = attributes.get(name)
        if text is None:
            continue
        if len(text) > _MAX_CONFIG_BYTES:
            raise UnsafeModelFile(f"{name} has {len(text)} bytes; at most {_MAX_CONFIG_BYTES} are allowed.")
        config = parse_config(text, name)
        if name == "model_config":
            _check_is_model(config, name)
        check_config(config, name, has_modules=False)
    return CheckedModel("h5", _check_version(attributes.get("keras_version", b"").decode("utf-8", "replace")))


def _check_is_model(config: Mapping[str, object], what: str) -> None:
    if config.get("class_name") not in _MODELS:
        raise UnsafeModelFile(f"{what} describes no model. Save a functional or sequential model, not a layer.")


def _check_version(version: object) -> str:
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None or not _OLDEST <= (int(match[1]), int(match[2])) <= _NEWEST:
        name = ascii(version[:40]) if isinstance(version, str) else "unknown"
        raise UnsafeModelFile(f"The file was saved by the Keras version {name}. Save it with Keras 2.13 to 3.15.")
    return match[0]


def _check_hdf5_file(file: IO[bytes]) -> Mapping[str, bytes]:
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return check_hdf5(data)
    except ValueError as error:  # an empty file cannot be mapped
        raise UnsafeModelFile("The weights are empty. Save the model again.") from error
