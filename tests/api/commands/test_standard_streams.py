"""The standard streams of commands: closed ones, as by `>&-`, are /dev/null; file names are printed as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from tests.support.gateway import create_database
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S
from tests.support.requirements import find_program


def run_closed(home: Path, closed: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a shell that closes streams; returns its status, standard output and standard error."""
    command = [find_program("bash"), "-c", f'"$@" {closed}', "bash", sys.executable, "-m", "api", *arguments]
    environment = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "ATALAYA_HOME": str(home),
        "MODEL__URL": "stub://",
        "AUTH__SIGNING_KEY": generate_signing_key("ES256"),
        "LEDGER__SIGNING_KEY": new_private_key(),
    }
    ended = subprocess.run(command, env=environment, cwd=home, capture_output=True, check=False, timeout=PATIENCE_S)
    return ended.returncode, os.fsdecode(ended.stdout), os.fsdecode(ended.stderr)


@pytest.mark.parametrize("arguments", [["users", "list"], ["--version"]], ids=" ".join)
def test_a_closed_standard_output_takes_what_is_printed(arguments: list[str], tmp_path: Path) -> None:
    """A command whose standard output is closed succeeds, and its output is lost."""
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    assert run_closed(tmp_path, ">&-", *arguments) == (0, "", "")


def test_a_closed_standard_error_takes_the_messages(tmp_path: Path) -> None:
    """With standard error closed, error messages are not written to standard output."""
    assert run_closed(tmp_path, "2>&-", "nope") == (2, "", "")


def test_a_closed_standard_input_is_empty(tmp_path: Path) -> None:
    """A password from a closed standard input is empty, and is rejected like any other that is too short."""
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    arguments = ("users", "add", "ana", "--role", "client", "--password-stdin")
    status, _, err = run_closed(tmp_path, "<&-", *arguments)
    assert (status, "password is too short" in err) == (1, True)


def test_a_file_name_is_printed_as_it_is(tmp_path: Path) -> None:
    """A result names a file whose name is not UTF-8 with the bytes of that name."""
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    name = os.fsdecode(b"b\xff")
    status, out, err = run_closed(tmp_path, "", "backup", name)
    assert (status, out.endswith(f": {name}\n"), err) == (0, True, "")


def test_a_folder_whose_name_is_not_utf8_can_be_verified(tmp_path: Path) -> None:
    """`models verify` takes a folder with any name, although its argument may also be the name of a model."""
    name = os.fsdecode(b"b\xff")
    (tmp_path / name).mkdir()
    status, _, err = run_closed(tmp_path, "", "models", "verify", name)
    assert (status, "is not signed: it has no model.sig" in err) == (1, True)


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_the_gateway_starts_with_closed_streams(closed: str, tmp_path: Path) -> None:
    """`serve`, whose log has queues for the standard streams, gets as far as to its listening sockets."""
    status, out, err = run_closed(tmp_path, closed, "serve", "--host", "a..b")
    assert (status, out) == (1, "")
    assert "2>&-" in closed or err == "error: HOST: a..b is not an address of this machine. Use :: for all addresses.\n"
