"""Types of fields that several bodies, queries and paths share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field


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
