"""How commands end early: Ctrl-C at any moment, a closed pipe, a bug."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.start.checkout import Checkout
from tests.contract.start.conftest import OpenTerminal, Terminal
from tests.support.linux import processes
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port
from tests.support.requirements import find_program

# A finder that acts at the first import of one module, to simulate Ctrl-C or a bug at that moment.
PROGRAM = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            {act}
sys.meta_path.insert(0, Finder())
sys.argv = ["atalaya", *{arguments!r}]
from api.cli import main
main()
"""
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
BUG = "raise ValueError('password=hunter2')"


def run_until(checkout: Checkout, module: str, act: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that acts when it imports `module`."""
    program = PROGRAM.format(module=module, act=act, arguments=arguments)
    python = str(Path(checkout.atalaya).with_name("python"))
    return checkout.run(python, "-c", program, changes={"MODEL__URL": "stub://", "PORT": str(free_port())})


@pytest.fixture(scope="module", autouse=True)
def database(checkout: Checkout) -> None:
    """The database of the checkout, with the secrets that a gateway needs."""
    for arguments in (("secrets", "init"), ("db", "init")):
        assert checkout.run(checkout.atalaya, *arguments).returncode == 0


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("typer", ["--help"]),
        ("api.settings", ["users", "list"]),
        ("sqlalchemy", ["users", "list"]),
        ("aiosqlite.core", ["audit"]),
        ("pydantic._internal._generate_schema", ["audit"]),
        ("httpx", ["classify", "--url", "http://127.0.0.1:1", "--token", "x", "samples/yellowstone_forest.jpg"]),
        ("model.backends.stub", ["predict", "samples/yellowstone_forest.jpg"]),
        ("api.app", ["serve"]),
        ("api.schemas.predictions", ["serve"]),
        ("model.backends.open", ["serve"]),
        ("httpx", ["demo"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_ctrl_c_while_a_command_starts_is_quiet(checkout: Checkout, module: str, arguments: list[str]) -> None:
    """SIGINT while a module is being imported ends the command with status 130 and without output."""
    ended = run_until(checkout, module, INTERRUPT, *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_ctrl_c_ends_make_run_quietly(open_terminal: OpenTerminal, shell: str) -> None:
    """Ctrl-C ends `make run` with status 130, while it starts and while it serves, without an error message."""
    terminal = open_terminal(shell)
    for moment in ("make run", "Press Ctrl-C to stop."):
        terminal.sendline("make run")
        terminal.expect_exact(moment)
        wait_until(lambda: runs_program(terminal))
        terminal.sendintr()
        shown, status = read_status(terminal)
        assert status == 130, shown
        assert "rror" not in shown
        assert "Traceback" not in shown


def test_ctrl_c_at_a_prompt_is_quiet(checkout: Checkout, open_terminal: OpenTerminal) -> None:
    """Ctrl-C at the prompt for a password ends the command with status 130, and the terminal echoes again."""
    terminal = open_terminal("bash")
    terminal.sendline(f"{checkout.atalaya} users add ana --role client")
    terminal.expect_exact("Password: ")
    terminal.sendintr()
    shown, status = read_status(terminal)
    assert status == 130, shown
    assert "Traceback" not in shown
    terminal.sendline("stty -a")
    terminal.expect(r"[ -]echo ")
    assert terminal.after == " echo "


def runs_program(terminal: Terminal) -> bool:
    """Whether the shell's make has a shell that runs a program: `atalaya demo`.

    GNU make itself fails with status 2 ("wait: No child processes") if Ctrl-C arrives just when a recipe ends, as the
    first recipe does at once.
    """
    assert terminal.pid is not None
    try:
        makes = processes.children(terminal.pid)
        return any(processes.children(shell) for make in makes for shell in processes.children(make))
    except (FileNotFoundError, ProcessLookupError):  # a process has ended meanwhile
        return False


def read_status(terminal: Terminal) -> tuple[str, int]:
    """What the terminal shows until the next prompt, and the status of the last command."""
    terminal.sendline('printf "%s=%s.\\n" status $?')
    terminal.expect(r"status=(\d+)\.")
    assert isinstance(terminal.match, re.Match)
    return terminal.before or "", int(terminal.match[1])


def test_ctrl_c_while_a_command_waits_is_quiet(checkout: Checkout) -> None:
    """SIGINT while a command waits for a lock in the database ends it with status 130 and without output."""
    database = checkout.folder / "var" / "atalaya.db"
    command = [checkout.atalaya, "users", "disable", "nobody"]
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with subprocess.Popen(
            command, env=checkout.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            wait_until(lambda: has_open(process.pid, database))
            process.send_signal(signal.SIGINT)
            output = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, *output) == (130, "", "")


def has_open(pid: int, path: Path) -> bool:
    try:
        return str(path) in [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:  # closed meanwhile
        return False


@pytest.mark.parametrize(
    "command", ["audit", "audit --json", "audit --export -", "users list"], ids=lambda command: command.replace(" ", "")
)
def test_a_closed_pipe_is_quiet(checkout: Checkout, command: str) -> None:
    """A command whose reader has exited prints no error, and exits as if killed by SIGPIPE."""
    # The command starts only after the reader has exited.
    script = f"{{ sleep 0.2; {checkout.atalaya} {command}; echo $? >&2; }} | true"
    ended = checkout.run(find_program("bash"), "-c", script)
    assert re.fullmatch(r"(\d+ entries exported.\n)?(141|0)\n", ended.stderr)  # 0 if there is nothing to print


def test_a_bug_is_one_line(checkout: Checkout) -> None:
    """An unexpected error is one line, without a traceback or credentials."""
    ended = run_until(checkout, "sqlalchemy", BUG, "users", "list")
    expected = (
        "error: This is a bug (ValueError: password=[redacted]). Run the command again with --debug to see where."
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{expected}\n")


def test_debug_shows_the_traceback(checkout: Checkout) -> None:
    """With --debug, before or after the command, the traceback precedes the line."""
    for arguments in (["--debug", "users", "list"], ["users", "list", "--debug"]):
        ended = run_until(checkout, "sqlalchemy", BUG, *arguments)
        assert ended.stderr.startswith("Traceback (most recent call last):"), arguments
        assert ended.stderr.splitlines()[-1].startswith("error: This is a bug (ValueError")


def test_errors_are_json_where_json_is_expected(checkout: Checkout) -> None:
    """With --json a failed command prints one JSON document with a code, and the usual line on standard error."""
    ended = checkout.run(checkout.atalaya, "keys", "list", "--user", "nobody", "--json")
    assert ended.returncode == 1
    error = json.loads(ended.stdout)["error"]
    assert (error["code"], ended.stderr) == ("user_not_found", f"error: {error['detail']}\n")


def test_a_password_needs_a_terminal_or_an_option(checkout: Checkout) -> None:
    """Without a terminal, a command that prompts for a password says which option to use."""
    ended = checkout.run(find_program("setsid"), "--wait", checkout.atalaya, "token", "--user", "ana")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: There is no terminal to read the password from. Use --password-stdin.\n"
