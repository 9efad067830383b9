"""Checks of the options with which commands create credentials."""

from __future__ import annotations

import typer
from pydantic import TypeAdapter, ValidationError

from api.schemas.fields import PrintableName


def check_scope(scope: str | None) -> str | None:
    """Reject an empty --scope, which a script passes if its variable is not set. Raises BadParameter.

    In OAuth, an empty request means all scopes, so `select_scopes` would grant them.
    """
    if scope is not None and not scope.strip():
        raise typer.BadParameter("It is empty. Name at least one scope, or leave out --scope for the default.")
    return scope


def check_name(name: str) -> str:
    """Check the name of a new client by the rule for the names of API keys. Raises BadParameter."""
    try:
        return TypeAdapter(PrintableName).validate_python(name)
    except ValidationError as error:
        raise typer.BadParameter(f"{describe_first_problem(error)[1]}.") from None


def describe_first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the field of the first problem, or "", and what is wrong with it. Never returns the value."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    return str(next(iter(first["loc"]), "")), first["msg"].removeprefix("Value error, ")
