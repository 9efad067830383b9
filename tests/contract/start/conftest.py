"""A copy of the checkout, and terminals in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import pexpect
import pytest

from tests.contract.start.checkout import Checkout, make_checkout
from tests.support.polling import PATIENCE_S
from tests.support.ports import free_port
from tests.support.requirements import find_program

Terminal: TypeAlias = "pexpect.spawn[str]"
OpenTerminal = Callable[[str], Terminal]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A fresh copy for the tests of one file: without .env, database and state."""
    return make_checkout(tmp_path_factory.mktemp("start") / "atalaya", free_port())


@pytest.fixture(scope="module")
def open_terminal(checkout: Checkout) -> Iterator[OpenTerminal]:
    """Open a terminal with an interactive shell in the checkout."""
    opened: list[Terminal] = []

    def open_one(shell: str) -> Terminal:
        arguments = ["--noprofile", "--norc", "-i"] if shell == "bash" else ["-i"]
        terminal = pexpect.spawn(
            find_program(shell),
            arguments,
            cwd=str(checkout.folder),
            env=checkout.environment,
            encoding="utf-8",
            timeout=int(PATIENCE_S),
            dimensions=(50, 1000),
        )
        opened.append(terminal)
        return terminal

    yield open_one
    for terminal in opened:
        terminal.close(force=True)
