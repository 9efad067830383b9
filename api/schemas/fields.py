"""Types of fields that several bodies, queries and paths share, and texts about invalid values in plain words."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema, ErrorDetails


def _check_number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    if text.isspace():
        raise ValueError("must not consist of spaces only")
    return text


# For `int` fields, after their bounds: as in JSON Schema, 3.0 is an integer, but true and "3" are not.
JSON_NUMBER = BeforeValidator(_check_number)
# UUIDs are compared without regard to case (RFC 9562, section 4); the database has them in lower case.
UuidInPath = Annotated[str, AfterValidator(str.lower)]
PrintableName = Annotated[
    str, Field(min_length=1, max_length=64, json_schema_extra={"format": "printable"}), AfterValidator(_check_printable)
]
UserId = Annotated[
    str, Field(pattern=r"^[0-9A-Fa-f-]{36}$", description="another user's id"), AfterValidator(str.lower)
]
Quota = Annotated[int, Field(ge=0, le=2**53), JSON_NUMBER]


def _reject_number(value: object) -> object:
    if isinstance(value, str) and value[4:5] != "-":
        raise ValueError("must be a date and a time, as in 2026-11-23T12:00:00Z")
    return value


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be between the years 1 and 9999 in UTC") from None


# Pydantic would accept a number as seconds since 1970.
Timestamp = Annotated[AwareDatetime, BeforeValidator(_reject_number), AfterValidator(_to_utc)]


class _HiddenNull:
    """Removes null from the JSON schema of `X | None`, for fields that may be absent but should not be null.

    `X | SkipJsonSchema[None]` would be a union, whose errors name its members.
    """

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return cast("JsonSchemaValue", handler(schema)["anyOf"][0])  # the other alternative is null


HIDDEN_NULL = _HiddenNull()


# By the beginning of pydantic's type of error.
_TEXTS = {
    "bool": "must be true or false",
    "datetime": "must be a date and a time, as in 2026-11-23T12:00:00Z",
    "dict": "must be a JSON object",
    "extra_forbidden": "is unknown here",
    "float": "must be a number",
    "int": "must be a whole number",
    "json_invalid": "is not valid JSON",
    "list": "must be a JSON list",
    "missing": "is required",
    "model": "must be a JSON object",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode text",
    "timezone": "must be a date and a time with an offset, as in 2026-11-23T12:00:00Z",
}
# By the name of the value: a regular expression tells most callers nothing.
_FORMS = {
    "cursor": "must be one that the previous page gave",
    "rate": "must be N/second, N/minute, N/hour or N/day, such as 60/minute",
    "user": "must be the id of a user",
}


def describe_invalid(error: ErrorDetails) -> str:
    """Return what is wrong with a value, to be written after its name."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"]).rstrip(".") or "is malformed"
    if kind == "string_pattern_mismatch":
        name = str(error["loc"][-1])
        return _FORMS.get(name, "is malformed, or has characters that are not allowed here")
    fixed_text = next((text for prefix, text in _TEXTS.items() if kind.startswith(prefix)), None)
    return fixed_text or re.sub(r"^\w+ should ", "must ", error["msg"]).replace(" after validation,", ",")


def name_location(error: ErrorDetails) -> str:
    """Return where the value is, such as `body.scopes.0`."""
    # FastAPI adds the position of a syntax error.
    parts = error["loc"][:1] if error["type"] == "json_invalid" else error["loc"]
    return ".".join(map(str, parts))
