"""Describes problems with settings in plain words: what is allowed, and never the value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from api.schemas.fields import describe_invalid
from api.settings.gateway import Settings
from api.settings.reading.names import find_similar

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_TEXTS = {
    "model": "must contain JSON objects",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "tuple": "must be a JSON list",
}
_NUMBERS = ("int", "float", "finite", "greater_than", "less_than")


def describe_problem(error: ErrorDetails) -> str:
    """Return one line that names the setting and what is allowed."""
    # The index of a list item means nothing to users.
    parts = error["loc"][:-1] if isinstance(error["loc"][-1], int) else error["loc"]
    name = "__".join(str(part) for part in parts).upper()
    text = _describe(error, name)
    return f"{name}: {text}{'?' if 'Did you mean' in text else '.'}"


def _describe(error: ErrorDetails, name: str) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        meant = find_similar(name)
        return f"is not a setting. Did you mean {meant}" if meant else "is not a setting"
    if "expected" in context:  # the values of an enumeration
        return f"must be {str(context['expected']).replace(chr(39), '')}"
    if kind.startswith(_NUMBERS):
        return _describe_number(_find_field(error["loc"]))
    fixed_text = next((text for prefix, text in _TEXTS.items() if kind.startswith(prefix)), None)
    return fixed_text or describe_invalid(error)


def _describe_number(field: FieldInfo | None) -> str:
    if field is None:
        return "must be a number"
    bounds = {
        name: getattr(item, name) for item in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)
    }
    number = "a whole number" if int in (field.annotation, *get_args(field.annotation)) else "a number"
    if "ge" in bounds and "le" in bounds:
        return f"must be {number} from {bounds['ge']} to {bounds['le']}"
    words = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
    limits = " and ".join(f"{words[name]} {bound}" for name, bound in bounds.items())
    return f"must be {number} {limits}".rstrip()


def _find_field(location: Sequence[int | str]) -> FieldInfo | None:
    """Return the field at the location of an error, which may be inside a list."""
    model: type[BaseModel] | None = Settings
    field = None
    for part in location:
        if isinstance(part, str):
            field = model.model_fields.get(part) if model else None
            annotation = field.annotation if field else None
            models = [kind for kind in (annotation, *get_args(annotation)) if _is_model(kind)]
            model = models[0] if models else None
    return field


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
