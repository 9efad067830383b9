"""Checks of the options with which commands create credentials."""

from __future__ import annotations

import typer
from pydantic import TypeAdapter, ValidationError

from api.schemas.fields import PrintableName, describe_invalid


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
        first = error.errors(include_input=False, include_url=False)[0]
        raise typer.BadParameter(f"{describe_invalid(first)}.") from None
