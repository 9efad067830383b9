"""Tables on terminals of different widths."""

from __future__ import annotations

import io
import pty
from contextlib import suppress

import pytest

from api.commands.output import print_table

HEADERS = ("task", "last done", "command")
ROWS = [
    ("dependency_update", "2026-11-26 19:48", "upgrade, then atalaya upkeep --done dependency_update"),
    ("backup", "never", "atalaya backup FILE"),
]


def read_to_end(terminal: io.FileIO) -> bytes:
    """Everything that was written to the terminal, whose other end must be closed."""
    output = b""
    with suppress(OSError):  # raised at the end
        while chunk := terminal.read(4096):
            output += chunk
    return output


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (60, ["upgrade, then", "atalaya upkeep", "--done", "dependency_update", "atalaya backup", "FILE"]),
        (80, ["upgrade, then atalaya upkeep --done", "dependency_update", "atalaya backup FILE"]),
        (120, ["upgrade, then atalaya upkeep --done dependency_update", "atalaya backup FILE"]),
    ],
)
def test_a_table_breaks_lines_between_words(monkeypatch: pytest.MonkeyPatch, columns: int, lines: list[str]) -> None:
    """A terminal of any width shows identifiers and words whole, and no line is wider than the terminal."""
    master, slave = pty.openpty()
    monkeypatch.setenv("COLUMNS", str(columns))
    with open(master, "rb", buffering=0) as terminal:
        with open(slave, "w") as stdout, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", stdout)
            print_table(HEADERS, ROWS, identifiers=2)
        printed = read_to_end(terminal).decode().splitlines()
    assert max(map(len, printed[3:])) <= columns
    assert [line[41:].strip() for line in printed[3:] if line.strip()] == lines
    assert printed[3].split()[:3] == ["dependency_update", "2026-11-26", "19:48"]


def test_a_table_in_a_narrower_terminal_than_its_words_keeps_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that does not fit is wider than the terminal; only a word of more than 40 characters is broken."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table(("name", "value"), [("digest", "a" * 64), ("command", "then atalaya upkeep --done dependency_update")])
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if "─" not in line and line.strip()]
    assert printed[1:] == [
        ["digest", "a" * 40],
        ["a" * 24],
        ["command", "then", "atalaya", "upkeep", "--done"],
        ["dependency_update"],
    ]
