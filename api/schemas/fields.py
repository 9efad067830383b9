"""Types of fields that several bodies share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field


def _check_number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


# For `int` fields, after their bounds: as in JSON Schema, 3.0 is an integer, but true and "3" are not.
JSON_NUMBER = BeforeValidator(_check_number)
Quota = Annotated[int, Field(ge=0, le=2**53), JSON_NUMBER]
