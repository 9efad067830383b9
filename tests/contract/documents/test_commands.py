"""Commands that the guides name exist, with the options that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.commands.group import COMMANDS, LazyCommand, run_command
from tests.contract.documents.markdown import PAGES, read_command_lines, read_inline, read_typed_lines
from tests.support.paths import ROOT

COMMAND = re.compile(r"(?<!-u )(?<!DATABASE )(?<![\w/.@:=-])atalaya(?: ([^|;&)>]*))?")
SUBSTITUTION = re.compile(r"\$\((?![^()]*atalaya)[^()]*\)")
IN_CONTAINER = re.compile(r"docker compose exec((?: -\w+)*) (\S+) (\S+)")
OPTION = re.compile(r"--[a-z][\w-]*")
EXECUTABLES = {
    "alertmanager": {"amtool"},
    "gateway": {"atalaya", "cat", "rm", "sh", "python"},
    "postgres": {"pg_dump", "pg_restore", "createdb", "psql", "dropdb"},
}
PAGES_WITH_COMMANDS = [page for page in PAGES if any("atalaya " in line for line in read_command_lines(page))]
PrintHelp = Callable[[str], str]


@pytest.fixture
def print_help(capsys: pytest.CaptureFixture[str]) -> PrintHelp:
    """A function that returns what `atalaya COMMAND --help` prints; empty for an unknown command."""
    printed: dict[str, str] = {}

    def run(command: str) -> str:
        if command not in printed:
            status = run_command([*command.split(), "--help"])
            printed[command] = capsys.readouterr().out if status == 0 else ""
        return printed[command]

    return run


def find_commands(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the arguments of each `atalaya` command in the lines."""
    for line in lines:
        for arguments in COMMAND.findall(SUBSTITUTION.sub("VALUE", line)):
            if arguments and not arguments.startswith(("-", "<")):
                yield split_arguments(re.sub(r"[\[\]\\]|(?<!\")…|<.*", " ", arguments))


def split_arguments(text: str) -> list[str]:
    """Split as a shell does, or at spaces where the text ends inside of quotes."""
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return [word.strip("'\"") for word in text.split()]


def find_problem(arguments: list[str], print_help: PrintHelp) -> str:
    """Return what is wrong with a command line: an unknown command or option; empty if nothing is."""
    path, rest = "", list(arguments)
    while rest and "\nCommands:\n" in print_help(path) and not rest[0].startswith("-"):
        path = f"{path} {rest.pop(0)}".strip()
    known = set(OPTION.findall(print_help(path)))
    if not known:
        return f"no command: {path}"
    unknown = set(OPTION.findall(" ".join(rest))) - known - {"--debug"}
    return f"{path} has no {' '.join(sorted(unknown))}" if unknown else ""


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path, print_help: PrintHelp) -> None:
    """Each `atalaya` command on a page is one that the program has, with options that it has."""
    problems = {
        " ".join(command): find_problem(command, print_help) for command in find_commands(read_command_lines(page))
    }
    assert {command: problem for command, problem in problems.items() if problem} == {}


def find_command(arguments: list[str]) -> tuple[Any, list[str]]:
    """Return the command that the arguments name, and the rest of them."""
    command: Any = LazyCommand(arguments[0], *COMMANDS[arguments[0]]).load()
    rest = [each for each in arguments[1:] if each != "--debug"]
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def find_missing(arguments: list[str]) -> list[str]:
    """Return the names of the arguments and options that the command requires and does not get."""
    command, rest = find_command(arguments)
    context = command.context_class(command, **command.context_settings)
    given, _, _ = command.make_parser(context).parse_args(rest)
    return [
        each.name
        for each in command.params
        if each.required and not isinstance(given.get(each.name), str | list | tuple)
    ]


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_complete(page: Path) -> None:
    """Commands in code blocks, and those with arguments in runbooks, have everything that the command requires."""
    commands = list(find_commands(read_typed_lines(page)))
    if page.parent.name == "runbooks":
        commands += [command for command in find_commands(read_inline(page)) if command and find_command(command)[1]]
    problems = {" ".join(command): find_missing(command) for command in commands if "--help" not in command}
    assert {command: problem for command, problem in problems.items() if problem} == {}


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("ledger verify --anchor N:HASH", ""),
        ("ledger verfy", "no command: ledger verfy"),
        ("users passwd admin --password x", "users passwd has no --password"),
        ("migrate", "no command: migrate"),
    ],
)
def test_wrong_commands_are_found(command: str, problem: str, print_help: PrintHelp) -> None:
    """A misspelt command and an option that the command does not have are found."""
    assert find_problem(command.split(), print_help) == problem


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("models rollback NAME", ["why"]),
        ("models rollback --why x", ["name"]),
        ("models rollback NAME --expect 1.1 --why x", []),
        ("upkeep", []),
    ],
)
def test_incomplete_commands_are_found(command: str, missing: list[str]) -> None:
    """A missing option or argument that a command requires is found."""
    assert find_missing(command.split()) == missing


def test_commands_in_containers_exist() -> None:
    """`docker compose exec` names a service of the Compose file, and a program that its image has."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    executed = [found for page in PAGES for line in read_command_lines(page) for found in IN_CONTAINER.findall(line)]
    assert executed
    for _, service, program in executed:
        assert service in services
        assert program in EXECUTABLES[service], (service, program)


@pytest.mark.parametrize(
    "name", ["ledger.md", "runbooks/README.md", "security/audit.md", "security/auth.md", "security/users.md"]
)
def test_guides_say_how_commands_are_run(name: str) -> None:
    """A guide to operating a gateway links to how to run commands with Compose, under systemd and in a checkout."""
    assert "deploy/README.md#commands)" in (ROOT / "docs" / name).read_text()
