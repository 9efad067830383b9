"""How a command reports its errors: Ctrl-C, the end of standard input, and what --json prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from pydantic_core import SchemaValidator, core_schema

from api.cli import run
from api.commands import group
from api.errors import CommandFailed

Captured = pytest.CaptureFixture[str]


def build_schema() -> None:
    """A command that builds a schema of pydantic, for which pydantic compiles a pattern."""
    SchemaValidator(core_schema.str_schema(pattern="a", regex_engine="python-re"))


def ask() -> None:
    """A command that asks a question, whose input has ended."""
    try:
        raise EOFError
    except EOFError:
        raise typer.Abort from None


def read_file() -> None:
    """A command that finds that a file is damaged, because it ends too early."""
    try:
        raise EOFError
    except EOFError as error:
        raise CommandFailed("The file is damaged.") from error


def run_alone(function: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a function of this module as a command."""
    monkeypatch.setattr(group, "COMMANDS", {"act": (f"{__name__}:{function}", "Act.")})
    return run(["act"])


def raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_inside_of_pydantic_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """pydantic-core replaces a KeyboardInterrupt with an error that has only its name; the command ends quietly."""
    monkeypatch.setattr(re, "compile", raise_interrupt)
    status = run_alone("build_schema", monkeypatch)
    monkeypatch.undo()
    assert (status, *capsys.readouterr()) == (130, "", "")


def test_the_end_of_standard_input_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """A question that is not answered because standard input has ended is an error that says so."""
    assert run_alone("ask", monkeypatch) == 1
    assert "standard input has ended" in capsys.readouterr().err


def test_the_end_of_another_file_is_not_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """An error of the project that an EOFError has caused keeps its message."""
    assert run_alone("read_file", monkeypatch) == 1
    assert capsys.readouterr().err == "error: The file is damaged.\n"


@pytest.mark.parametrize("name", ["EOFError", "KeyboardInterrupt", "KeyboardInterrupt: "])
def test_an_argument_may_be_the_name_of_an_error(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    """The name of an error in the arguments does not change how the command's own error is reported."""
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{tmp_path}/models")
    assert run(["models", "show", name]) == 1
    assert f"'{name}'" in capsys.readouterr().err
    assert run([name]) == 2
    assert capsys.readouterr().err == f"error: No such command '{name}'.\n"


@pytest.mark.parametrize(
    "arguments", [["users", "add", "--json"], ["users", "list", "--json", "--nonsense"], ["keys", "lst", "--json"]]
)
def test_a_usage_error_is_json(arguments: list[str], capsys: Captured) -> None:
    """With --json a usage error is one JSON document with the same text as the line on standard error."""
    assert run(arguments) == 2
    output = capsys.readouterr()
    error = json.loads(output.out)["error"]
    assert (error["code"], f"error: {error['detail']}\n") == ("usage_error", output.err)
