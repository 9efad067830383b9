"""The names of the settings, which of them are secrets, and the setting that a mistyped name probably means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from api.settings.gateway import Settings

_MIN_FUZZY_LENGTH = 8  # shorter names, such as PORT, resemble too many others
_MIN_SIMILARITY = 0.9


@cache
def list_names() -> Sequence[str]:
    """Return the names of all settings as environment variables."""
    return tuple(name for name, _ in _list_fields(Settings))


@cache
def list_secret_names() -> Sequence[str]:
    """Return the names of the settings that a secret provider may set: all secrets but those for the provider."""
    fields = [(name, repr(field.annotation)) for name, field in _list_fields(Settings)]
    return tuple(name for name, type_name in fields if "SecretStr" in type_name and not name.startswith("SECRETS__"))


def find_changed_secrets(old: Settings, new: Settings) -> list[str]:
    """Return the names of the secrets whose values differ."""
    return [name for name in list_secret_names() if _read_value(old, name) != _read_value(new, name)]


def find_similar(name: str) -> str | None:
    """Return the setting whose name differs only in underscores, two swapped letters or one wrong letter, if any."""
    best, highest = None, 0.0
    for known in list_names():
        similarity = _compare(_fold(name), _fold(known))
        if similarity > highest:
            best, highest = known, similarity
    return best


def find_mistyped(variables: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable that is not a setting, but probably a misspelling of one that is not set."""
    known = set(list_names())
    groups = {name.partition("__")[0] for name in known if "__" in name}
    warnings = []
    for name, value in variables.items():
        group, separator, _ = name.partition("__")
        if name in groups and value.startswith("{"):
            warnings.append(f"{name} is ignored: the settings of this group have names that begin with {name}__.")
        elif name in known or name in groups or (separator and group in groups):
            continue  # the settings themselves reject an unknown name in a group
        elif (meant := find_similar(name)) is not None and meant not in variables:
            warnings.append(f"{name} is not a setting and is ignored. Did you mean {meant}?")
    return warnings


def _list_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _list_fields(field.annotation, f"{prefix}{name}__".upper())
        else:
            yield f"{prefix}{name}".upper(), field


def _read_value(settings: Settings, name: str) -> object:
    value: object = settings
    for part in name.lower().split("__"):
        value = getattr(value, part)
    return value


def _fold(name: str) -> str:
    return name.replace("__", "_")


def _compare(name: str, known: str) -> float:
    """Return the similarity, from 0 (another name) to 1 (equal)."""
    if abs(len(name) - len(known)) > 1:
        return 0.0
    if name == known or (sorted(name) == sorted(known) and _count_differences(name, known) == 2):
        return 1.0
    if len(known) < _MIN_FUZZY_LENGTH or name[:1] != known[:1]:
        return 0.0
    similarity = SequenceMatcher(None, name, known, autojunk=False).ratio()
    return similarity if similarity >= _MIN_SIMILARITY else 0.0


def _count_differences(name: str, known: str) -> int:
    return sum(left != right for left, right in zip(name, known, strict=True))
