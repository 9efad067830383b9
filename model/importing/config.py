"""Check the JSON of a model file against the allow-list: every class, function and member name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from model.errors import UnsafeModelFile
from model.importing.classes import (
    MEMBERS,
    NAMED_BY_AUTHOR,
    is_allowed_class,
    is_allowed_function,
    is_allowed_reference,
)

_MAX_DEPTH = 64
_MAX_TEXT = 512
_TENSOR_MEMBERS = {"shape", "dtype", "keras_history"}
_IDENTITY = ("class_name", "module", "registered_name")


def parse_config(text: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object without duplicate names. `what` names the text in messages. Raises UnsafeModelFile."""
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=_build_object)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UnsafeModelFile(f"{what} is not valid JSON: {reason}. Save the model again.") from error
    if not isinstance(document, dict):
        raise UnsafeModelFile(f"{what} is not a JSON object. Save the model again.")
    return document


def check_config(document: Mapping[str, Any], what: str, *, has_modules: bool) -> None:
    """Check the document, which describes a model or its training.

    `has_modules` says whether the format includes the module of each class: .keras files do, HDF5 files only in part.
    Raises UnsafeModelFile with a message that names the first member that is not on the allow-list.
    """
    _Checker(has_modules).check(document, what, "", 0)


class _Checker:
    def __init__(self, has_modules: bool) -> None:
        self._has_modules = has_modules

    def check(self, value: Any, where: str, member: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise UnsafeModelFile(f"{where} is nested more than {_MAX_DEPTH} levels deep.")
        if isinstance(value, dict):
            self._check_object(value, where, member, depth)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.check(item, f"{where}[{index}]", member, depth + 1)
        elif isinstance(value, str):
            _check_text(value, where, member)

    def _check_object(self, value: dict[str, Any], where: str, member: str, depth: int) -> None:
        if any(name in value for name in _IDENTITY):
            self._check_class(value, where)
        for name, child in value.items():
            if name not in MEMBERS and member not in NAMED_BY_AUTHOR:
                _reject(f"{where} has the member {_quote(name)}")
            if value.get("class_name") == "function" and name == "config":
                continue  # the name of the function, which is checked with its module
            self.check(child, f"{where}.{_shorten(name)}", name, depth + 1)

    def _check_class(self, value: Mapping[str, Any], where: str) -> None:
        module, name, registered = value.get("module"), value.get("class_name"), value.get("registered_name")
        if not isinstance(name, str) or not isinstance(module, str | None):
            _reject(f"{where} has a class or a module whose name is not text")
        if name == "__keras_tensor__":
            config = value.get("config")
            if module is not None or not isinstance(config, dict) or config.keys() - _TENSOR_MEMBERS:
                _reject(f"{where} is not a symbolic tensor")
            return
        if name == "function":
            self._check_function(module, value.get("config"), registered, where)
            return
        full_name = name if module is None else f"{module}.{name}"
        if (module is None and self._has_modules) or not is_allowed_class(module, name):
            _reject(f"{where} is of the class {_quote(full_name)}")
        if registered not in (None, name):
            _reject(f"{where} is registered as {_quote(registered)}")
        if not isinstance(value.get("config"), dict | None):
            _reject(f"{where} has a configuration that is not an object")

    def _check_function(self, module: str | None, name: Any, registered: Any, where: str) -> None:
        if not isinstance(name, str) or not is_allowed_function(module, name):
            _reject(f"{where} is the function {_quote(f'{module}.{name}')}")
        if registered not in (None, "function", name):
            _reject(f"{where} is registered as {_quote(registered)}")


def _check_text(value: str, where: str, member: str) -> None:
    if len(value) > _MAX_TEXT:
        _reject(f"{where} has more than {_MAX_TEXT} characters")
    if "://" in value or value.startswith(("/", "~", "\\")) or ".." in value.replace("\\", "/").split("/"):
        _reject(f"{where} refers to a file: {_quote(value)}")
    if is_allowed_reference(member, value) is False:
        _reject(f"{where} refers to {_quote(value)}")


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return document


def _reject(problem: str) -> NoReturn:
    raise UnsafeModelFile(
        f"{problem}, which is not on the allow-list. Build the classifier from Keras' own image layers, without "
        "Lambda, custom objects or lookup layers, and save it again."
    )


def _quote(text: object) -> str:
    """Quote and shorten text from the file, so that it cannot write control characters to a terminal or a log."""
    return ascii(_shorten(str(text)))


def _shorten(text: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= 80 else f"{printable[:80]}..."
